"""The JSON Schema that editors check a policy by takes what the grammar takes, and refuses what it refuses,
but for what no schema can say."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from dockerd_guard.policy.model import Correct, Mode, PolicyError, TlsFiles, Watch
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.policy.values import parse_duration
from tests.support.policy_cases import (
    ADDRESSES,
    ADDRESSES_REFUSED,
    DURATIONS,
    FULL,
    HEAD,
    LISTEN_STREAM,
    MISTAKES,
    WHAT_FD_STANDS_FOR,
    WINDOWS_REFUSED,
    Rows,
)
from tests.support.schema import SCHEMA, TOP, Core, properties, refusals

pytestmark = pytest.mark.libraries

BEYOND = (
    # Between values.
    "is already declared in line", "dockerd has one TLS setting", "already takes this port",
    "dockerd speaks TLS on TCP only", "which is empty",
    # Between the characters of one.
    "is no IPv6 address", "write the IPv4 address itself", "at most 107 bytes", "it has no name",
    "ports go from 1 to 65535", "it must be from", "the period must be at least", "a window that ends when it starts",
    "knows no time zone", "is out of range", "year 0 is out of range",
    # Of YAML's words: for YAML 1.2 these are text, or quoting makes no difference.
    "found the boolean", "expected true or false; found '",
)
"""What the grammar says of mistakes that a schema of this kind cannot see."""


def mistakes(text: str) -> list[str]:
    try:
        parse_policy(text.encode())
    except PolicyError as error:
        return [problem.message for problem in error.problems]
    return []


def agree(text: str) -> None:
    said, refused = mistakes(text), refusals(text)
    if not said:
        assert refused == [], text
    elif not refused:
        assert all(any(words in mistake for words in BEYOND) for mistake in said), (said, text)


def test_the_schema_is_one() -> None:
    Draft7Validator.check_schema(SCHEMA)


def test_the_whole_grammar() -> None:
    agree(FULL)
    agree((TOP / "config.example.yaml").read_text())
    assert mistakes(FULL) == refusals(FULL) == []


@pytest.mark.parametrize("text", [row[0] for row in MISTAKES if isinstance(row[0], str)],
                         ids=lambda text: repr(text[:40]))
def test_the_mistakes_of_the_grammars_own_table(text: str) -> None:
    try:
        yaml.load(text, Core)
    except (yaml.YAMLError, RecursionError):
        return  # nothing a schema is ever asked about
    if mistakes(text)[0].startswith(("duplicate key", "a second document", "anchors", "tags", "nested")):
        return
    agree(text)


@pytest.mark.parametrize(("form", "rows"), [
    ("version: 1\nsockets: ['{}']\n", ADDRESSES), ("version: 1\nsockets: ['{}']\n", ADDRESSES_REFUSED),
    (HEAD + "socket_unit: {{listen: ['{}']}}\n", LISTEN_STREAM), (HEAD + "watch: {{resync: '{}'}}\n", DURATIONS),
    (HEAD + "correct: {{window: '{}'}}\n", WINDOWS_REFUSED), ("version: 1\n{}\n", WHAT_FD_STANDS_FOR),
])
def test_the_values_of_the_grammars_own_tables(form: str, rows: Rows) -> None:
    for text, *_ in rows:
        agree(form.format(text))


# -- policies nobody wrote --------------------------------------------------------------------------


TRIED_ADDRESSES = ("fd://", "fd://*", "fd://3", "unix://", "unix:///run/docker.sock", "unix://@docker", "unix://run/x",
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
addresses = st.sampled_from([f"'{address}'" for address in TRIED_ADDRESSES])


def often(usual: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Mostly what belongs there, now and then anything else."""
    return st.one_of(usual, usual, usual, scalars)


def mapping(**keys: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A mapping with some of these keys, and now and then one more."""
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
    *(HEAD + f"watch: {{{{{key}: {{}}}}}}\n" for key in ("settle", "resync", "unknown")),
    *(HEAD + f"waive: [{{{{rule: DG103, reason: so, {key}: {{}}}}}}]\n" for key in ("address", "until", "unknown")),
    HEAD + "waive: [{{rule: {}, reason: so}}]\n", HEAD + "waive: [{{rule: DG103, reason: {}}}]\n",
)
"""A policy for each place where a value can stand, with room for it."""


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_value_in_every_place(leaf: str) -> None:
    for value in (*SCALARS, *(f"'{address}'" for address in TRIED_ADDRESSES)):
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
            foreign_files=words("true", "No", "OFF"), contain=words("false", "on"))),
        "watch": often(mapping(settle=words("100ms", "61s"), resync=words("5min", "2d"))),
        "waive": often(listing(mapping(rule=words("DG103"), address=addresses, reason=words("because", "7"),
                                       until=words("2027-03-31", "'2027-03-31'")))),
        "unknown": scalars,
    }).map(lambda made: "".join(f"{key}: {value}\n" for key, value in made.items()))


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(POLICIES)
def test_any_policy(text: str) -> None:
    agree(text)


def test_the_generated_policies_are_of_all_kinds() -> None:
    """Or the test above says nothing."""
    kinds: set[tuple[bool, bool]] = set()

    @settings(max_examples=1000, deadline=None, derandomize=True, database=None)
    @given(POLICIES)
    def look(text: str) -> None:
        kinds.add((bool(mistakes(text)), bool(refusals(text))))

    look()
    assert kinds == {(False, False), (True, True), (True, False)}


# -- what it says beside that -----------------------------------------------------------------------


def test_every_key_is_described() -> None:
    assert [path for path, value in properties(SCHEMA) if not value["description"].endswith(".")] == []


def test_the_defaults_are_the_grammars() -> None:
    shown = {path: value["default"] for path, value in properties(SCHEMA) if "default" in value}
    correct, watch, tls = Correct(), Watch(), TlsFiles()
    unit = parse_policy(HEAD.encode()).socket_unit
    assert shown.pop("sockets[].tls") == parse_policy(b"version: 1\nsockets: [tcp://10.0.0.5]").sockets[0].tls
    assert parse_duration(shown.pop("watch.settle")) == watch.settle_s
    assert parse_duration(shown.pop("watch.resync")) == watch.resync_s
    assert shown == {
        "mode": Mode.OBSERVE, "socket_unit.listen": [listen.value for listen in unit.listen], "tls.ca": tls.ca,
        "tls.cert": tls.cert, "tls.key": tls.key, "correct.restart": correct.restart, "correct.budget": "3/1h",
        "correct.foreign_files": correct.foreign_files, "correct.contain": correct.contain, "waive": []}
    assert parse_policy((HEAD + "correct: {budget: 3/1h}").encode()).correct == correct
