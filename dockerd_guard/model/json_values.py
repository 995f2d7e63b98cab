"""Typed access to JSON that another program or an earlier version wrote. Every function raises JsonError alone.

`loads` parses text, `get` takes a value out of an object by a converter: `get(data, "pid", as_int)`. Converters of
lists and objects are made of others: `as_list(as_str)`. `as_record` makes one of the fields of a NamedTuple, and
`encoded` is its inverse.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

JsonObject = Mapping[str, object]

MAX_BYTES = 64 * 1024 * 1024
"""More than any file that dockerd-guard writes."""

MAX_NUMBER_CHARACTERS = 40

T = TypeVar("T")
Default = TypeVar("Default")
Record = TypeVar("Record", bound=tuple[Any, ...])


class JsonError(Exception):
    """A value is not what it must be. `key` is its path, such as `drifts[2].since`; empty for the whole text."""

    def __init__(self, requirement: str, key: str = "") -> None:
        super().__init__(f"{key}: {requirement}" if key else requirement)
        self.requirement = requirement
        self.key = key


class _Required(Enum):
    """The type of the default of a key that must be there."""

    TOKEN = 0


def loads(data: bytes | str, max_bytes: int = MAX_BYTES) -> object:
    """The value of a JSON text (RFC 8259), stricter than json.loads.

    Errors are also: text that is too long, not UTF-8 or nested too deeply, a key used twice, NaN, and numbers that have
    no finite value or more than MAX_NUMBER_CHARACTERS.
    """
    if len(data) > max_bytes:
        raise JsonError(f"must have at most {max_bytes} bytes")
    try:
        text = data if isinstance(data, str) else data.decode()
        return json.loads(text, object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant)
    except RecursionError:
        raise JsonError("must not be nested so deeply") from None
    except ValueError as error:
        raise JsonError(f"must be JSON: {error}") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise JsonError("must not use a key twice")
    return made


def _int(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise JsonError(f"must have at most {MAX_NUMBER_CHARACTERS} characters in a number")
    return int(text)


def _float(text: str) -> float:
    number = float(text) if len(text) <= MAX_NUMBER_CHARACTERS else math.inf
    if not math.isfinite(number):
        raise JsonError("must have numbers of finite size")
    return number


def _constant(name: str) -> NoReturn:
    raise JsonError(f"must be JSON: {name} is no value")


def get(data: JsonObject, key: str, convert: Callable[[object], T],
        default: Default | _Required = _Required.TOKEN) -> T | Default:
    """The value of a key. With a default, the key may be missing or null."""
    if not isinstance(default, _Required) and data.get(key) is None:
        return default
    if key not in data:
        raise JsonError("is missing", key)
    return _convert(data[key], convert, key)


def _convert(value: object, convert: Callable[[object], T], where: str) -> T:
    """A value by a converter, whose error gets the place of the value."""
    try:
        return convert(value)
    except JsonError as error:
        separator = "." if error.key and not error.key.startswith("[") else ""
        raise JsonError(error.requirement, f"{where}{separator}{error.key}") from None


def as_str(value: object) -> str:
    if not isinstance(value, str):
        raise JsonError("must be a string")
    return value


def as_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise JsonError("must be true or false")
    return value


def as_int(value: object) -> int:
    """An integer of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int) or not -2**63 <= value < 2**63:
        raise JsonError("must be an integer of 64 bits")
    return value


def as_float(value: object) -> float:
    if isinstance(value, float):
        return value
    return float(as_int(value))


def as_datetime(value: object) -> datetime:
    """A date and time with a time zone (RFC 3339), as an aware datetime in UTC."""
    try:
        moment = datetime.fromisoformat(as_str(value))
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (OverflowError, ValueError):
        raise JsonError("must be a date and time with a time zone") from None


def as_bytes(value: object) -> bytes:
    """Bytes in base64."""
    try:
        return base64.b64decode(as_str(value), validate=True)
    except (binascii.Error, ValueError):
        raise JsonError("must be base64") from None


def as_object(value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise JsonError("must be an object")
    return value


def as_one_of(values: Iterable[T]) -> Callable[[object], T]:
    """A converter to one of these strings."""
    known = {str(each): each for each in values}

    def convert(value: object) -> T:
        if not isinstance(value, str) or value not in known:
            raise JsonError(f"must be one of {', '.join(known)}")
        return known[value]

    return convert


def as_list(convert: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    """A converter to a tuple of items that are all of one type."""

    def convert_list(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise JsonError("must be a list")
        return tuple(_convert(item, convert, f"[{number}]") for number, item in enumerate(value))

    return convert_list


def as_row(length: int) -> Callable[[object], tuple[object, ...]]:
    """A converter to a tuple of this many items of different types."""

    def convert(value: object) -> tuple[object, ...]:
        if not isinstance(value, list) or len(value) != length:
            raise JsonError(f"must be a list of {length} items")
        return tuple(value)

    return convert


def as_map(convert: Callable[[object], T]) -> Callable[[object], dict[str, T]]:
    """A converter to a dictionary whose values are all of one type."""
    return lambda value: {key: _convert(item, convert, key) for key, item in as_object(value).items()}


Converters = Mapping[object, Callable[[object], Any]]
"""Converters by type."""

_CONVERTERS: Converters = {
    str: as_str, bool: as_bool, int: as_int, float: as_float, bytes: as_bytes, datetime: as_datetime}


def as_record(kind: type[Record], converters: Converters = MappingProxyType({})) -> Callable[[object], Record]:
    """A converter to a NamedTuple by the types of its fields.

    The value is an object, in which fields with a default may be missing, or a list of all fields. `converters` are
    those of types that are written in another way.
    """
    hints = get_type_hints(kind)
    defaults: Mapping[str, object] = kind._field_defaults  # type: ignore[attr-defined]
    fields = {name: _converter_of(hints[name], converters) for name in kind._fields}  # type: ignore[attr-defined]

    def convert(value: object) -> Record:
        is_row = isinstance(value, list)
        data = dict(zip(fields, as_row(len(fields))(value), strict=True)) if is_row else as_object(value)
        return kind(**{name: get(data, name, field) for name, field in fields.items()
                       if name in data or name not in defaults})

    return convert


def _converter_of(hint: Any, converters: Converters) -> Callable[[object], Any]:
    if hint in converters or hint in _CONVERTERS:
        return converters.get(hint) or _CONVERTERS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        convert = _converter_of(next(each for each in arguments if each is not NoneType), converters)
        return lambda value: None if value is None else convert(value)
    if origin is Literal:
        return as_one_of(arguments)
    if origin is tuple:
        return as_list(_converter_of(arguments[0], converters))
    if origin is Mapping:
        return as_map(_converter_of(arguments[1], converters))
    return as_record(hint, converters)


def encoded(value: object, encoders: Mapping[type, Callable[[Any], object]] = MappingProxyType({})) -> Any:
    """A value of NamedTuples, times and bytes for json.dumps. `encoders` are those of types that are written in another
    way."""
    if type(value) in encoders:
        value = encoders[type(value)](value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: encoded(item, encoders) for key, item in value.items()}
    return [encoded(item, encoders) for item in value] if isinstance(value, (tuple, list)) else value
