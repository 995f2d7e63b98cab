"""The JSON Schema of the policy, applied to YAML as an editor does it."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from dockerd_guard.policy.schema import schema

SCHEMA: dict[str, Any] = json.loads(json.dumps(schema()))
VALIDATOR = Draft7Validator(SCHEMA)


class Core(yaml.SafeLoader):
    """YAML 1.2's core schema, which yaml-language-server implements."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- as the class above declares it


for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"), ("int", r"[-+]?[0-9]+", "-+0123456789"),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""])):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})\\Z"), list(first))


def schema_errors(text: str) -> list[str]:
    """The errors of a policy that the schema finds."""
    return [error.message for error in VALIDATOR.iter_errors(yaml.load(text, Core))]
