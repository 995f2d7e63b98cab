"""pflag's grammar, and offsets of flags and values."""

from __future__ import annotations

import pytest

from dockerd_guard.dockerd.flags import CommandLine, Flag, FlagWord, parse
from dockerd_guard.dockerd.version import NEWEST_DOCKERD, Version


def line(*words: str, version: Version | None = NEWEST_DOCKERD) -> CommandLine:
    return parse(tuple(FlagWord(text, index) for index, text in enumerate(words, 1)), version)


@pytest.mark.parametrize(("words", "values"), [
    (("-H", "a"), ["a"]),
    (("-H=a",), ["a"]),
    (("-Ha",), ["a"]),
    (("-H==a",), ["=a"]),
    (("-H=",), ["="]),
    (("-H", "="), ["="]),
    (("--host", "a"), ["a"]),
    (("--host=a",), ["a"]),
    (("--host=",), [""]),
    (("-DHa",), ["a"]),
    (("-DH=a",), ["a"]),
    (("-DH", "a"), ["a"]),
    (("-DrHa",), ["a"]),
    (("-H", "--debug"), ["--debug"]),
    (("-HD",), ["D"]),
    (("-H", "-D"), ["-D"]),
    (("-Ha", "-H", "b", "--host=c"), ["a", "b", "c"]),
    (("-GH", "a"), []),
    (("-lH",), []),
    (("-test.H", "a"), []),
    (("--", "-H", "a"), []),
    (("-H", "--", "-Hb"), ["--", "b"]),
])
def test_host_values(words: tuple[str, ...], values: list[str]) -> None:
    assert [flag.value for flag in line(*words).flags if flag.name == "host"] == values


@pytest.mark.parametrize(("words", "error"), [
    (("-H",), "flag needs an argument: 'H' in -H"),
    (("-DH",), "flag needs an argument: 'H' in -H"),
    (("--host",), "flag needs an argument: --host"),
    (("-host", "a"), "unknown shorthand flag: 'o'"),
    (("--hosts=a",), "unknown flag: --hosts"),
    (("--Host=a",), "unknown flag: --Host"),
    (("--hos=a",), "unknown flag: --hos"),
    (("--=a",), "bad flag syntax: --"),
    (("---host",), "bad flag syntax: ---host"),
    (("-é",), "unknown shorthand flag: 'Ã'"),
    (("--tls=yes",),
     'invalid argument for "--tls" flag: strconv.ParseBool: invalid syntax'),
    (("-D=",), "unknown shorthand flag: '='"),
    (("-H", "http://x"),
     'invalid argument "http://x" for "-H, --host" flag: invalid bind address (http://x): unsupported proto \'http\''),
    (("--registry-mirror", "--debug"),
     'invalid argument for "--registry-mirror" flag: invalid mirror: no scheme specified: '
     "must use either 'https://' or 'http://'"),
    (("--label", "x"), 'invalid argument for "--label" flag: bad attribute format'),
    (("--mtu", "1.5"), 'invalid argument for "--mtu" flag: strconv.ParseInt: invalid syntax'),
    (("--default-ulimit", "nofile=2:1"), 'invalid argument for "--default-ulimit" flag: ulimit soft limit must be '
     "less than or equal to hard limit"),
    (("--add-runtime", "x=/a", "--add-runtime=X=/b"),
     'invalid argument for "--add-runtime" flag: runtime was already defined'),
    (("--mtu=" + "9" * 5000,), None),
])
def test_errors(words: tuple[str, ...], error: str | None) -> None:
    found = line(*words).error
    assert found == error if error is not None else found


@pytest.mark.parametrize(("words", "left_over"), [
    (("-D", "x"), ["x"]),
    (("--tls", "false"), ["false"]),
    (("-", "-D"), ["-"]),
    (("",), [""]),
    (("-sH", "tcp://x"), ["tcp://x"]),
    (("--", "-D", "--"), ["-D", "--"]),
])
def test_positionals(words: tuple[str, ...], left_over: list[str]) -> None:
    assert [word.text for word in line(*words).positionals] == left_over


@pytest.mark.parametrize(("word", "value", "offset", "value_offset"), [
    ("-Hx", "x", 1, 2),
    ("-H=x", "x", 1, 3),
    ("-DrHx", "x", 3, 4),
    ("-DH=x", "x", 2, 4),
    ("--host=x", "x", 0, 7),
])
def test_offset_of_an_attached_value(word: str, value: str, offset: int, value_offset: int) -> None:
    flag = line("-D", word).flags[-1]
    assert flag == Flag("host", value, 2, 1, offset, 2, value_offset)
    assert word[value_offset:] == value


def test_offset_of_a_separate_value() -> None:
    assert line("-DH", "x").flags[-1] == Flag("host", "x", 1, 2, 2, 2, 0)
    assert line("--host", "x").flags[-1] == Flag("host", "x", 1, 2, 0, 2, 0)


@pytest.mark.parametrize(("flag", "known"), [
    ("--validate", {"23.0.0", "28.5.2", "29.7.2"}),
    ("--ip6tables", {"20.10.24", "23.0.0", "28.5.2", "29.7.2"}),
    ("-g=/x", {"19.3.15", "20.10.24", "23.0.0"}),
    ("--cluster-store=x", {"19.3.15", "20.10.24"}),
    ("--api-cors-header=x", {"19.3.15", "20.10.24", "23.0.0", "28.5.2"}),
    ("--oom-score-adjust=1", {"19.3.15", "20.10.24", "23.0.0"}),
    ("--feature=x", {"28.5.2", "29.7.2"}),
    ("--firewall-backend=x", {"29.7.2"}),
    ("--live-restore", {"19.3.15", "20.10.24", "23.0.0", "28.5.2", "29.7.2"}),
])
def test_flags_by_release(flag: str, known: set[str]) -> None:
    versions = ("19.3.15", "20.10.24", "23.0.0", "28.5.2", "29.7.2")
    assert {version for version in versions if line(flag, version=Version.parse(version)).error is None} == known
    assert line(flag, version=None).error is None


@pytest.mark.parametrize(("version", "refused"), [("20.10.24", True), ("23.0.0", False), ("28.5.2", False)])
def test_empty_certificate_path_makes_20_10_panic(version: str, refused: bool) -> None:
    error = line("--tlscacert=", version=Version.parse(version)).error
    assert (error is not None and error.startswith("panic: ")) is refused
