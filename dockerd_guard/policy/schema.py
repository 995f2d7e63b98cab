"""The JSON Schema of the policy: `python3 -m dockerd_guard.policy.schema` prints it.

The package installs it as /usr/share/dockerd-guard/policy.schema.json for yaml-language-server, which reads YAML 1.2
and supports draft 7. It accepts what the reader accepts; what depends on two values or on the host is left to the
reader.
"""

from __future__ import annotations

import json
from typing import Any

from dockerd_guard.policy.keys import PolicyKey, Type, keys_in

_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IP = rf"{_BYTE}(\.{_BYTE}){{3}}|\[[0-9A-Fa-f:.]+\]"
_PORT = "[1-9][0-9]{0,4}"
_URL_HOST = r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])"
_SOCKET_PATH = r"[^\u0000- \u007f%]+"
_DURATION = r"([0-9]{1,9}(\.[0-9]{1,6})? ?(us|usec|ms|msec|s|sec|m|min|h|hr|hour|hours|d|day|days) *)+"
_DAY = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_DAYS = rf"{_DAY}((-|\.\.){_DAY})?"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]"


def _pattern(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$"}


SCALARS: dict[Type, dict[str, Any]] = {
    Type.VERSION: {"const": 1},
    Type.BOOLEAN: {"anyOf": [
        {"type": "boolean"},
        _pattern("([Tt][Rr][Uu][Ee]|[Yy][Ee][Ss]|[Oo][Nn]|[Ff][Aa][Ll][Ss][Ee]|[Nn][Oo]|[Oo][Ff][Ff])")]},
    Type.ADDRESS: _pattern(rf"(fd://\*?|unix://(/{_SOCKET_PATH}|@{_SOCKET_PATH})?|"
                           rf"tcp://(localhost|{_IP})?(:({_PORT})?)?)"),
    Type.LISTEN_STREAM: {"anyOf": [
        {"type": "integer", "minimum": 1, "maximum": 65535},
        _pattern(rf"(/{_SOCKET_PATH}|@{_SOCKET_PATH}|({_PORT})|(({_IP}):{_PORT}))")]},
    Type.PATH: _pattern(r"/[^\u0000-\u001f\u007f]*"),
    Type.DURATION: _pattern(_DURATION),
    Type.BUDGET: _pattern(f"(?!0+/)[0-9]{{1,6}}/{_DURATION}"),
    Type.WINDOW: _pattern(rf"({_DAYS}(,{_DAYS})*\s+)?{_TIME}-({_TIME}|24:00)\s+\S+"),
    Type.URL: _pattern(rf'https?://{_URL_HOST}(:{_PORT})?(/[!-"$->@-~]*)?'),
    Type.GROUP: {"anyOf": [{"type": "number"}, _pattern("[a-zA-Z0-9.-]{1,64}")]},
    Type.COUNT: {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 999}, _pattern("[1-9][0-9]{0,2}")]},
    Type.RULE: _pattern("DG[0-9]{3}"),
    Type.TEXT: {"type": ["string", "number"], "minLength": 1},
    Type.DATE: _pattern("[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"),
}
"""The schema of each type of scalar but Type.CHOICE. A number is text to the reader where text is expected."""


def schema() -> dict[str, Any]:
    """The schema of the whole policy."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "The policy of dockerd-guard",
        "description": "Where the Docker API of a host listens, and how drift is corrected.",
        **_mapping(""),
        "definitions": {kind.name.lower(): SCALARS[kind] for kind in SCALARS},
    }


def _mapping(name: str) -> dict[str, Any]:
    keys = keys_in(name).values()
    required = [key.word for key in keys if key.is_required]
    return {"type": "object", **({"required": required} if required else {}), "additionalProperties": False,
            "properties": {key.word: _value(key) for key in keys}}


def _value(key: PolicyKey) -> dict[str, Any]:
    described: dict[str, Any] = {"description": text_of(key)}
    if key.default is not None:
        described["default"] = list(key.default) if isinstance(key.default, tuple) else key.default
    if key.type is Type.MAPPING:
        return described | _mapping(key.name)
    if key.type is Type.LIST:
        return described | _list(key)
    if key.example:
        described["examples"] = [key.example]
    if key.type is Type.CHOICE:
        return described | {"enum": list(key.values)}
    # Siblings of $ref are ignored in draft 7.
    return described | {"allOf": [_reference(key.type)]}


def _list(key: PolicyKey) -> dict[str, Any]:
    kinds = [_reference(key.items)] if key.items is not None else []
    if keys_in(f"{key.name}[]"):
        kinds.append(_mapping(f"{key.name}[]"))
    items = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return {"type": "array", "items": items, **({"minItems": 1} if key.is_required else {})}


def _reference(kind: Type) -> dict[str, Any]:
    return {"$ref": f"#/definitions/{kind.name.lower()}"}


def text_of(key: PolicyKey) -> str:
    """The text of a key with the range of its values."""
    return f"{key.text} From {key.within[0]} to {key.within[1]}." if key.within is not None else key.text


def written(key: PolicyKey) -> str:
    """The default of a key as it is written in YAML; the empty string if it has none."""
    if isinstance(key.default, tuple):
        return f"[{', '.join(key.default)}]"
    return str(key.default).lower() if isinstance(key.default, bool) else key.default or ""


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
