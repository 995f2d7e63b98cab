"""The JSON Schema of the policy: applied to YAML as an editor does it, and walked key by key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
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


def properties(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path and the description of each key, such as `sockets[].tls`."""
    for name, value in schema.get("properties", {}).items():
        yield f"{path}{name}", value
        yield from properties(value, f"{path}{name}.")
        for item in (value.get("items", {}), *value.get("items", {}).get("anyOf", ())):
            yield from properties(item, f"{path}{name}[].")
