"""daemon.json: values, errors, locations, and removal of a key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockerd_guard.dockerd.config import File, conflict, load, parse, without_key
from dockerd_guard.dockerd.flags import FlagWord
from dockerd_guard.dockerd.flags import parse as parse_flags
from dockerd_guard.dockerd.gojson import InvalidJson, after, scan
from dockerd_guard.dockerd.version import NEWEST_DOCKERD, Version
from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import Unreadable
from tests.support.cpu_time import check_cpu_time

V20, V26, V28 = Version(20, 10, 24), Version(26, 1, 5), Version(28, 5, 2)
PATH = "/etc/docker/daemon.json"


def read(text: str | bytes, version: Version | None = NEWEST_DOCKERD) -> File:
    return parse(PATH, text if isinstance(text, bytes) else text.encode(), version)


@pytest.mark.parametrize(("text", "error"), [
    ('{"a" 1}', "invalid character '1' after object key"),
    ('{"hosts": [],}', "invalid character '}' looking for beginning of object key string"),
    ('{"hosts": ["a",]}', "invalid character ']' looking for beginning of value"),
    ('"hosts": ["a"]', "invalid character ':' after top-level value"),
    ('{"hosts": ["""a"]}', "invalid character '\"' after array element"),
    ("// why\n{}", "invalid character '/' looking for beginning of value"),
    ("{'hosts': []}", "invalid character '\\'' looking for beginning of object key string"),
    ("{} x", "invalid character 'x' after top-level value"),
    ('{"a": NaN}', "invalid character 'N' looking for beginning of value"),
    ('{"a": 01}', "invalid character '1' after object key:value pair"),
    ('{"a": tru}', "invalid character '}' in literal true (expecting 'e')"),
    ('{"a": "\t"}', "invalid character '\\t' in string literal"),
    ('{"a": "\\x"}', "invalid character 'x' in string escape code"),
    ('{"a": 1.}', "invalid character '}' after decimal point in numeric literal"),
    ('{"a"', "unexpected end of JSON input"),
    ("[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
    ('{"x": 1e999}', "json: cannot unmarshal number into Go value of type float64"),
    ('{"a":' + "[" * 20_000, "exceeded max depth"),
    (b'{"hosts": ["\xff"]}', "failed to decode configuration JSON at offset 12: encoding: invalid UTF-8"),
])
def test_json_errors(text: str | bytes, error: str) -> None:
    assert read(text).error == error


@pytest.mark.parametrize(("text", "hosts"), [
    ('{"hosts": ["a", "b"]}', ["a", "b"]),
    ('{"hosts": []}', []),
    ('{"hosts": null}', []),
    ('{"hosts": [null, "a"]}', ["", "a"]),
    ('{"host": ["a"]}', []),
    ('{"x": {"hosts": ["a"]}}', []),
    ('{"hosts": ["a"], "hosts": ["b"]}', ["b"]),
    # encoding/json decodes over what is there, and null leaves it (seen on 20.10, 26.1 and 28.5).
    ('{"hosts": ["a"], "hosts": [null, "b"]}', ["a", "b"]),
    ('{"hosts": ["\\u0061\\ud83d\\ude00\\ud800"]}', ["a\U0001f600\ufffd"]),
    ("null", []),
    ("", []),
    (" \n", []),
    ('\u00a0{"hosts": ["a"]}\u2003', ["a"]),
    (b'\xef\xbb\xbf{"hosts": ["a"]}', ["a"]),
    (b"\xff\xfe" + '{"hosts": ["ä"]}'.encode("utf-16-le"), ["ä"]),
    (b"\xfe\xff" + '{"hosts": ["ä"]}'.encode("utf-16-be"), ["ä"]),
])
def test_hosts(text: str | bytes, hosts: list[str]) -> None:
    file = read(text)
    assert (file.error, file.mismatch, [host.text for host in file.hosts]) == (None, None, hosts)


@pytest.mark.parametrize(("text", "hosts", "error"), [
    ('{"hosts": ["a"]} and so on', ["a"], None),
    ('{"hosts": ["a"]}{"hosts": ["b"]}', ["a"], None),
    ("", [], "EOF"),
    ('{"hosts"', [], "unexpected EOF"),
    (b'\xef\xbb\xbf{"hosts": ["a"]}', [], "invalid character 'ï' looking for beginning of value"),
    (b'{"hosts": ["\xff"]}', ["\ufffd"], None),
])
def test_20_10_ignores_trailing_text(text: str | bytes, hosts: list[str], error: str | None) -> None:
    file = read(text, V20)
    assert ([host.text for host in file.hosts], file.error) == (hosts, error)


@pytest.mark.parametrize(("text", "mismatch"), [
    ('{"hosts": "tcp://x"}', True),
    ('{"hosts": [1]}', True),
    ('{"hosts": {}}', True),
    ('{"tls": "true"}', True),
    ('{"tls": null}', False),
    ('{"mtu": 1.0}', True),
    ('{"mtu": 1500}', False),
    ('{"mtu": 9223372036854775808}', True),
    ('{"log-opts": {"max-file": 3}}', True),
    ('{"log-opts": {"max-file": "3"}}', False),
    ('{"default-shm-size": 64}', True),
    ('{"default-shm-size": null}', True),
    ('{"default-shm-size": "64M"}', False),
    ('{"dns": ["x"]}', True),
    ('{"features": {"buildkit": "true"}}', True),
    ('{"builder": {"gc": 5}}', True),
    ('{"default-ulimits": {"nofile": {"Hard": "5"}}}', True),
    ('{"runtimes": {"x": {"path": "p", "runtimeArgs": ["a"]}}}', False),
    ('{"proxies": {"http-proxy": 1}}', True),
    # Fields match case-insensitively; the check for unknown keys does not.
    ('{"HOSTS": {}}', True),
    ('{"http-proxy": 1}', False),
])
def test_value_types(text: str, mismatch: bool) -> None:
    assert (read(text).mismatch is not None) is mismatch


@pytest.mark.parametrize(("argv", "text", "message"), [
    ("-H fd://", '{"hosts": ["tcp://1.2.3.4:2375"]}',
     "the following directives are specified both as a flag and in the configuration file: "
     "hosts"),
    ("-H fd:// -H unix://", '{"hosts": []}',
     "the following directives are specified both as a flag and in the configuration file: "
     "hosts"),
    ("--host=", '{"hosts": ["a", "b"]}',
     "the following directives are specified both as a flag and in the configuration file: "
     "hosts"),
    ("-H fd:// -D --mtu 1500 --log-opt b=2 --log-opt a=1",
     '{"debug": false, "mtu": 1400, "log-opts": {"x": "y"}, "hosts": null}',
     "the following directives are specified both as a flag and in the configuration file: "
     "debug, hosts, log-opts, mtu"),
    ("-H fd://", '{"x": {"hosts": ["a"]}}',
     "the following directives are specified both as a flag and in the configuration file: "
     "hosts"),
    ("-H fd://", '{"host": ["a"]}', None),
    ("--tlsverify", '{"tls": true}', None),
    ("--add-runtime x=/y", '{"runtimes": {"z": {"path": "/z"}}}', None),
    ("--tls=false --tlsverify", '{"tls": true}',
     "the following directives are specified both as a flag and in the configuration file: "
     "tls"),
    ("", '{"Hosts": ["a"], "nope": 1}',
     "the following directives don't match any configuration option: Hosts, nope"),
    ("", '{"x": {"nope": 1}}', "the following directives don't match any configuration option: nope"),
    ("", '{"features": {"nope": true}, "builder": {"nope": 1}, "log-opts": {"nope": "1"}}', None),
    ("", '{"host-gateway-ip": "1.2.3.4", "host-gateway-ips": ["1.2.3.4"]}',
     "host-gateway-ip and host-gateway-ips must not both be specified in the config file"),
])
def test_conflicts(argv: str, text: str, message: str | None) -> None:
    words = tuple(FlagWord(word, index) for index, word in enumerate(argv.split(), 1))
    assert conflict(read(text), parse_flags(words, NEWEST_DOCKERD).flags, NEWEST_DOCKERD) == message


def test_locations() -> None:
    file = read('{\n  "tls": true,\n\t"hosts": ["tcp://ä:1",\n "b"],\n  "x": {"debug": true}, "host": 1\n}')
    assert [(key.name, key.location, key.inside, key.effective) for key in file.keys] == [
        ("tls", Location(PATH, 2, 4, 7), None, True),
        ("hosts", Location(PATH, 3, 3, 8), None, True),
        ("x", Location(PATH, 5, 4, 5), None, False),
        ("host", Location(PATH, 5, 26, 30), None, False),
        ("debug", Location(PATH, 5, 10, 15), "x", False),
    ]
    assert file.hosts == (("tcp://ä:1", Location(PATH, 3, 13, 22)), ("b", Location(PATH, 4, 3, 4)))


def test_locations_after_byte_order_mark_and_blanks() -> None:
    file = read("\ufeff\n  {\"hosts\": [\"a\"]}")
    assert file.hosts == (("a", Location(PATH, 2, 15, 16)),)


@pytest.mark.parametrize(("text", "left"), [
    ('{"hosts": ["a"]}', "{}"),
    ('{"hosts": ["a"], "b": 1}', '{"b": 1}'),
    ('{"b": 1, "hosts": ["a"]}', '{"b": 1}'),
    ('{\n  "a": 1,\n  "hosts": [\n    "x"\n  ],\n  "b": 2\n}\n', '{\n  "a": 1,\n  "b": 2\n}\n'),
    ('{\n  "a": 1,\n  "hosts": []\n}\n', '{\n  "a": 1\n}\n'),
    ('{\n  "hosts": []\n}\n', "{\n}\n"),
    ('{"hosts": 1, "hosts": 2}', "{}"),
    ('{"hosts": 1, "a": 1, "hosts": 2, "hosts": 3, "b": 2, "hosts": 4}', '{"a": 1, "b": 2}'),
    ('{"a": {"hosts": 1}}', '{"a": {"hosts": 1}}'),
    ('{"ho\\u0073ts": 1, "a": 1}', '{"a": 1}'),
    ('\ufeff{"ä": 1, "hosts": 2}', '\ufeff{"ä": 1}'),
    ("{ }", "{ }"),
])
def test_without_key(text: str, left: str) -> None:
    assert without_key(text.encode(), "hosts").decode() == left
    utf16 = b"\xff\xfe" + text.removeprefix("\ufeff").encode("utf-16-le")
    assert without_key(utf16, "hosts")[2:].decode("utf-16-le") == left.removeprefix("\ufeff")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"a": }', b"\xff", b"{"])
def test_without_key_needs_an_object(text: bytes) -> None:
    with pytest.raises(ValueError):
        without_key(text, "hosts")


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["hosts", "a", "b"]), inner), max_leaves=20))
def test_without_key_agrees_with_json(value: object) -> None:
    import json
    if not isinstance(value, dict):
        return
    text = json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass")
    left = json.loads(without_key(text, "hosts").decode("utf-8", "surrogatepass"))
    assert left == {name: inner for name, inner in value.items() if name != "hosts"}


@given(st.text(alphabet='{}[]:,"\\ue1-.0tfn \n\x00é', max_size=40))
def test_scan_agrees_with_json(text: str) -> None:
    """Except for NaN, which Go refuses and Python accepts."""
    import json
    try:
        expected: object = json.loads(text, parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError, RecursionError):
        expected = InvalidJson
    try:
        after(text, scan(text))
        assert expected is not InvalidJson
    except InvalidJson:
        assert expected is InvalidJson


@given(st.binary(max_size=200))
def test_any_bytes_parse(content: bytes) -> None:
    for version in (V20, V28, None):
        parse(PATH, content, version)


@pytest.mark.parametrize("content", [
    b"[" * 2_000_000,
    b'{"a":' * 400_000,
    b'{"hosts": ["' + b"\\u0041" * 300_000 + b'"]}',
    b'{"hosts": [' + b'"tcp://0.0.0.0:1",' * 60_000 + b'""]}',
    b"{" + b",".join(b'"k%d": 1' % number for number in range(20_000)) + b"}",
    b"\n" * 1_000_000 + b'{"hosts": ["a"]}',
    b'"' + b"\\" * 1_000_000,
    b"1" * 1_000_000,
])
def test_large_files_take_linear_time(content: bytes) -> None:
    def work() -> None:
        parse(PATH, content, V28)

    check_cpu_time(work, 10)


def test_read_errors() -> None:
    def fail(error: Exception) -> File:
        def read_file(path: str) -> bytes:
            raise error
        return load(PATH, read_file, NEWEST_DOCKERD)

    assert fail(FileNotFoundError()).missing
    assert fail(Unreadable(PATH, "is a directory, not a regular file")).error == f"read {PATH}: is a directory"
    assert fail(Unreadable(PATH, "is a FIFO, not a regular file")).unreadable
