"""The JSON Schema of the policy, walked key by key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def properties(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path and the description of each key, such as `sockets[].tls`."""
    for name, value in schema.get("properties", {}).items():
        yield f"{path}{name}", value
        yield from properties(value, f"{path}{name}.")
        for item in (value.get("items", {}), *value.get("items", {}).get("anyOf", ())):
            yield from properties(item, f"{path}{name}[].")
