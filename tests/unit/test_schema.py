"""The JSON Schema accepts what the reader accepts, and rejects what it rejects as far as a schema can express it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from dockerd_guard.policy.keys import KEYS
from dockerd_guard.policy.model import PolicyError
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.report.effective_policy import as_yaml
from tests.support import policy_cases
from tests.support.policy_cases import ERRORS, FULL, HEAD
from tests.support.schema import SCHEMA, Core, properties, schema_errors

pytestmark = pytest.mark.libraries

TOP = Path(__file__).resolve().parents[2]

BEYOND = (
    # Of two values.
    "is already declared in line", "dockerd has a single TLS setting", "already binds this port",
    "tls applies to TCP only", "which is empty", "has no effect with lock: fleetlock", "in correct.fleet.tls",
    "expected 1 to 10 URLs",
    # Of the characters of one value.
    "is not an IPv6 address", "use the IPv4 address", "at most 107 bytes", "the name of the socket is missing",
    "ports are 1 to 65535", "must be from", "the period must be at least", "the window ends when it starts",
    "is allowed to a loopback address only", "no time zone", "no such day in the calendar",
    # Of YAML 1.1: in YAML 1.2 these words are text, or quotes make no difference.
    "found the boolean", "expected true or false; found '",
)
"""Errors of the reader that a JSON Schema cannot express."""


def errors(text: str) -> list[str]:
    try:
        parse_policy(text.encode())
    except PolicyError as error:
        return [problem.message for problem in error.problems]
    return []


def agree(text: str) -> None:
    found, of_schema = errors(text), schema_errors(text)
    if not found:
        assert of_schema == [], text
    elif not of_schema:
        assert all(any(words in message for words in BEYOND) for message in found), (found, text)


def test_the_schema_is_valid() -> None:
    Draft7Validator.check_schema(SCHEMA)


def test_the_whole_grammar() -> None:
    agree(FULL)
    agree((TOP / "config.example.yaml").read_text())
    assert errors(FULL) == schema_errors(FULL) == []


@pytest.mark.parametrize("text", [text for text, _ in ERRORS if isinstance(text, str)],
                         ids=lambda text: repr(text[:40]))
def test_the_errors_of_the_reader(text: str) -> None:
    try:
        yaml.load(text, Core)
    except (yaml.YAMLError, RecursionError):
        return  # not a document that an editor can check
    if errors(text)[0].startswith(("duplicate key", "second YAML document", "anchors", "tags", "nested")):
        return
    agree(text)


@pytest.mark.parametrize(("table", "policy"), [
    ("ADDRESSES", "version: 1\nsockets: ['{}']\n"), ("INVALID_ADDRESSES", "version: 1\nsockets: ['{}']\n"),
    ("LISTEN_STREAMS", HEAD + "socket_unit: {{listen: ['{}']}}\n"), ("DURATIONS", HEAD + "watch: {{resync: '{}'}}\n"),
    ("INVALID_WINDOWS", HEAD + "correct: {{window: '{}'}}\n"), ("FD_SOCKETS", "version: 1\n{}\n"),
])
def test_the_values_of_the_tests_of_the_reader(table: str, policy: str) -> None:
    for text, _ in getattr(policy_cases, table):
        agree(policy.format(text))


# -- generated policies ------------------------------------------------------------------------------


ADDRESSES = ("fd://", "fd://*", "fd://3", "unix://", "unix:///run/docker.sock", "unix://@docker", "unix://run/x",
             "tcp://", "tcp://:2376", "tcp://0.0.0.0:2375", "tcp://10.0.0.5", "tcp://10.0.0.5:", "tcp://[::1]:2376",
             "tcp://[::1]", "tcp://::1:2376", "tcp://10.0.0.256:1", "tcp://10.0.0.5:0", "tcp://10.0.0.5:99999",
             "tcp://docker.example.org:2376", "tcp://10.0.0.5:2376/", "http://10.0.0.5", "0.0.0.0:2375")
SCALARS = ("true", "yes", "'yes'", "on", "tRuE", "null", "~", "''", "5", "1.5", "-1", "0", "word", "fd://", "mutual",
           "none", "/etc/docker/ca.pem", "ca.pem", "2375", "127.0.0.1:2375", "'[::1]:2375'", "'@docker'", "70000",
           "100ms", "5min", "1h 30min", "1.5 s", "5 parsecs", "3/1h", "0/1h", "3/0s", "/1h",
           "Sat,Sun 02:00-05:00 UTC", "Mon-Fri 22:00-24:00 Europe/Berlin", "24:00-02:00 UTC", "02:00-02:00 UTC",
           "2027-03-31", "2027-02-31", "2027-13-01", "DG103", "DG1", "dg103", "live-restore", "always", "never",
           "observe", "enforce", "[]", "{}", "[x]", "{x: 1}")

scalars = st.sampled_from(SCALARS)
addresses = st.sampled_from([f"'{address}'" for address in ADDRESSES])


def often(usual: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Mostly a usual value, sometimes any scalar."""
    return st.one_of(usual, usual, usual, scalars)


def mapping(**keys: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A mapping with some of these keys, sometimes with an unknown one."""
    some = st.fixed_dictionaries({}, optional={**{name: often(value) for name, value in keys.items()},
                                               "unknown": scalars} if keys else {})
    return some.map(lambda made: "{" + ", ".join(f"{key}: {value}" for key, value in made.items()) + "}")


def listing(item: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(often(item), max_size=3).map(lambda items: f"[{', '.join(items)}]")


def words(*chosen: str) -> st.SearchStrategy[str]:
    return st.sampled_from(chosen)


LEAVES = (
    "version: {}\nsockets: [fd://]\n", "version: 1\nsockets: {}\n", "version: 1\nsockets: [{}]\n",
    "version: 1\nsockets: [{{address: {}}}]\n", "version: 1\nsockets: [{{address: tcp://10.0.0.5, tls: {}}}]\n",
    *(HEAD + f"{section}: {{}}\n" for section in ("mode", "socket_unit", "tls", "correct", "watch", "waive")),
    HEAD + "socket_unit: {{listen: {}}}\n", HEAD + "socket_unit: {{listen: [/run/a, {}]}}\n",
    *(HEAD + f"tls: {{{{{key}: {{}}}}}}\n" for key in ("ca", "cert", "key", "unknown")),
    *(HEAD + f"correct: {{{{{key}: {{}}}}}}\n"
      for key in ("restart", "window", "budget", "foreign_files", "contain", "unknown")),
    *(HEAD + f"correct: {{{{fleet: {{{{lock: etcd, endpoints: ['https://a'], group: prod, {key}: {{}}}}}}}}}}\n"
      for key in ("slots", "lease", "timeout", "unreachable", "tls", "unknown")),
    *(HEAD + f"correct: {{{{fleet: {{{{lock: {lock}, endpoints: {endpoints}, group: {group}}}}}}}}}\n"
      for lock, endpoints, group in (("{}", "['https://a']", "prod"), ("etcd", "{}", "prod"), ("etcd", "[{}]", "prod"),
                                     ("fleetlock", "['https://a']", "{}"))),
    *(HEAD + f"watch: {{{{{key}: {{}}}}}}\n" for key in ("settle", "resync", "unknown")),
    *(HEAD + f"waive: [{{{{rule: DG103, reason: so, {key}: {{}}}}}}]\n" for key in ("address", "until", "unknown")),
    HEAD + "waive: [{{rule: {}, reason: so}}]\n", HEAD + "waive: [{{rule: DG103, reason: {}}}]\n",
)
"""A policy for each place of a value, with a placeholder."""


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_value_in_every_place(leaf: str) -> None:
    for value in (*SCALARS, *(f"'{address}'" for address in ADDRESSES)):
        agree(leaf.format(value))


POLICIES = st.fixed_dictionaries(
    {"version": often(st.just("1")),
     "sockets": often(listing(st.one_of(addresses, mapping(
         address=addresses, tls=words("mutual", "server", "none")))))},
    optional={
        "mode": often(words("observe", "enforce")),
        "socket_unit": often(mapping(listen=listing(scalars))),
        "tls": often(mapping(ca=words("/ca.pem"), cert=words("/cert.pem"), key=words("'/a key.pem'"))),
        "correct": often(mapping(
            restart=words("live-restore", "always", "never"), window=scalars, budget=scalars,
            foreign_files=words("true", "No", "OFF"), contain=words("false", "on"),
            fleet=mapping(lock=words("etcd", "fleetlock"), group=words("prod", "a/b"), slots=words("2", "0", "'7'"),
                          endpoints=words("['https://a']", "[]", "['http://a']", "['http://[::1]:1/x']"),
                          tls=mapping(cert=words("/c"), key=words("/k", "k")), lease=words("2min", "1s")))),
        "watch": often(mapping(settle=words("100ms", "61s"), resync=words("5min", "2d"))),
        "waive": often(listing(mapping(rule=words("DG103"), address=addresses, reason=words("because", "7"),
                                       until=words("2027-03-31", "'2027-03-31'")))),
        "unknown": scalars,
    }).map(lambda made: "".join(f"{key}: {value}\n" for key, value in made.items()))


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(POLICIES)
def test_any_policy(text: str) -> None:
    agree(text)
    if not errors(text):
        printed = as_yaml(parse_policy(text.encode()))
        assert (errors(printed), as_yaml(parse_policy(printed.encode()))) == ([], printed)


def test_the_generated_policies_are_of_all_kinds() -> None:
    """Otherwise the test above would prove nothing."""
    kinds: set[tuple[bool, bool]] = set()

    @settings(max_examples=1000, deadline=None, derandomize=True, database=None)
    @given(POLICIES)
    def collect(text: str) -> None:
        kinds.add((bool(errors(text)), bool(schema_errors(text))))

    collect()
    assert kinds == {(False, False), (True, True), (True, False)}


# -- descriptions and defaults -----------------------------------------------------------------------


def test_every_key_is_described() -> None:
    assert [path for path, value in properties(SCHEMA) if not value["description"].endswith(".")] == []


def test_the_defaults_of_the_schema_are_those_of_the_reader() -> None:
    """A policy with every default written out equals a policy without optional keys."""
    shown = {path: value["default"] for path, value in properties(SCHEMA) if "default" in value}
    shown.pop("sockets[].tls")  # only for TCP
    shown = {path: value for path, value in shown.items() if not path.startswith("correct.fleet.")}  # only with a lock
    sections: dict[str, dict[str, Any]] = {}
    for path, value in shown.items():
        section, _, key = path.rpartition(".")
        sections.setdefault(section, {})[key] = value
    lines = (f"{name}: {json.dumps(value)}\n" for name, value in (sections.pop("") | sections).items())
    written = parse_policy((HEAD + "".join(lines)).encode())
    omitted = parse_policy(HEAD.encode())
    assert (written.mode, written.correct, written.watch, written.waive, written.tls[:3]) == (
        omitted.mode, omitted.correct, omitted.watch, omitted.waive, omitted.tls[:3])
    assert [each[:2] for each in written.socket_unit.listen] == [each[:2] for each in omitted.socket_unit.listen]


def test_the_defaults_and_examples_of_the_table_are_values() -> None:
    for key in KEYS:
        if key.example:
            section, _, word = key.name.rpartition(".")
            text = f"{section}: {{{word}: '{key.example}'}}" if section else f"{word}: {key.example}"
            parse_policy(f"version: 1\n{'' if word == 'sockets' else 'sockets: [fd://]'}\n{text}".encode())
