"""Typed access to JSON: what is accepted, and the one error for everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal, NamedTuple

import pytest

from dockerd_guard.model.json_values import (
    JsonError,
    as_bool,
    as_bytes,
    as_datetime,
    as_float,
    as_int,
    as_list,
    as_map,
    as_object,
    as_one_of,
    as_record,
    as_row,
    as_str,
    encoded,
    get,
    loads,
)


@pytest.mark.parametrize(("data", "message"), [
    (b"", "must be JSON: Expecting value: line 1 column 1 (char 0)"),
    (b"{", "must be JSON"),
    (b"[" * 100_000, "must not be nested so deeply"),
    (b'{"a":' * 100_000, "must not be nested so deeply"),
    (b"\xff", "must be JSON: 'utf-8' codec can't decode byte 0xff"),
    (b'{"a": 1, "a": 1}', "must not use a key twice"),
    (b"[1e999]", "must have numbers of finite size"),
    (b"[NaN]", "must be JSON: NaN is no value"),
    (b"-Infinity", "must be JSON: -Infinity is no value"),
    (b"1" * 5000, "must have at most 40 characters in a number"),
    (b'"' + b"x" * 100 + b'"', "must have at most 100 bytes"),
], ids=lambda value: str(value[:20]))
def test_what_is_no_json(data: bytes, message: str) -> None:
    with pytest.raises(JsonError) as caught:
        loads(data, 100 if b"xxx" in data else 10_000_000)
    assert str(caught.value).startswith(message)


def test_json_is_read() -> None:
    assert loads(b'{"a": [1, 2.5, true, null, "\\udcff"]}') == {"a": [1, 2.5, True, None, "\udcff"]}


class Place(NamedTuple):
    line: int
    column: int = 1


class Row(NamedTuple):
    at: datetime
    kind: Literal["a", "b"]
    place: Place
    places: tuple[Place, ...] = ()
    content: bytes | None = b""
    counts: Mapping[str, float] = MappingProxyType({})


ROW = Row(datetime(2026, 11, 23, 12, tzinfo=UTC), "b", Place(3), (Place(1, 2),), b"\xff", {"x": 0.5})
ROW_JSON: dict[str, object] = {
    "at": "2026-11-23T12:00:00+00:00", "kind": "b", "place": {"line": 3, "column": 1}, "places": [[1, 2]],
    "content": "/w==", "counts": {"x": 0.5}}


@pytest.mark.parametrize(("changes", "found"), [
    ({}, ROW),
    ({"content": None}, ROW._replace(content=None)),
    ({"place": {"line": 3}}, ROW),
    ({"later": 1}, ROW),
    ({"place": {}}, "place.line: is missing"),
    ({"place": [3]}, "place: must be a list of 2 items"),
    ({"places": [[1, 2], [1, "x"]]}, "places[1].column: must be an integer of 64 bits"),
    ({"places": None}, "places: must be a list"),
    ({"kind": "c"}, "kind: must be one of a, b"),
    ({"counts": {"x": "1"}}, "counts.x: must be an integer of 64 bits"),
])
def test_records(changes: dict[str, object], found: object) -> None:
    try:
        assert as_record(Row)(ROW_JSON | changes) == found
    except JsonError as error:
        assert str(error) == found


def test_a_record_without_its_optional_fields() -> None:
    assert as_record(Row)({name: ROW_JSON[name] for name in ("at", "kind", "place")}) == Row(*ROW[:3])


def test_an_encoded_record_is_read_again() -> None:
    assert as_record(Row)(encoded(ROW)) == ROW
    assert encoded(ROW) == ROW_JSON | {"places": [{"line": 1, "column": 2}]}
    assert encoded(ROW, {Place: list})["place"] == [3, 1]


@pytest.mark.parametrize(("convert", "value", "found"), [
    (as_str, "x", "x"),
    (as_bool, False, False),
    (as_int, -2**63, -2**63),
    (as_float, 3, 3.0),
    (as_float, 0.5, 0.5),
    (as_datetime, "2026-11-23T13:00:00+01:00", datetime(2026, 11, 23, 12, tzinfo=UTC)),
    (as_bytes, "AP8=", b"\0\xff"),
    (as_object, {}, {}),
    (as_one_of(("a", "b")), "b", "b"),
    (as_list(as_str), ["x"], ("x",)),
    (as_row(2), ["x", 1], ("x", 1)),
    (as_map(as_int), {"x": 1}, {"x": 1}),
    (as_str, 1, "must be a string"),
    (as_bool, 1, "must be true or false"),
    (as_int, True, "must be an integer of 64 bits"),
    (as_int, 1.0, "must be an integer of 64 bits"),
    (as_int, 2**63, "must be an integer of 64 bits"),
    (as_float, 10**39, "must be an integer of 64 bits"),
    (as_datetime, "2026-11-23T13:00:00", "must be a date and time with a time zone"),
    (as_datetime, "0001-01-01T00:00:00+23:00", "must be a date and time with a time zone"),
    (as_bytes, "AP8", "must be base64"),
    (as_bytes, "\udcff", "must be base64"),
    (as_object, [], "must be an object"),
    (as_one_of(("a", "b")), ["a"], "must be one of a, b"),
    (as_list(as_str), ["x", 1], "[1]: must be a string"),
    (as_list(as_list(as_str)), [["x"], [1]], "[1][0]: must be a string"),
    (as_row(2), ["x"], "must be a list of 2 items"),
    (as_map(as_int), {"x": "1"}, "x: must be an integer of 64 bits"),
])
def test_converters(convert: Callable[[object], object], value: object, found: object) -> None:
    try:
        assert convert(value) == found
    except JsonError as error:
        assert str(error) == found


def test_an_error_names_the_key() -> None:
    def inner(value: object) -> int:
        return get(as_object(value), "count", as_int)

    data = {"rows": [{"count": 1}, {"count": "x"}]}
    with pytest.raises(JsonError, match=r"^rows\[1\]\.count: must be an integer of 64 bits$"):
        get(data, "rows", as_list(inner))


def test_defaults() -> None:
    assert get({"a": None}, "a", as_int, 7) == get({}, "a", as_int, 7) == 7
    for data, message in (({}, "a: is missing"), ({"a": None}, "a: must be an integer of 64 bits")):
        with pytest.raises(JsonError, match=message):
            get(data, "a", as_int)
