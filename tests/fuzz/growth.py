"""The time for any input is about linear: twice the input takes about twice the time.

A case creates a host of a given size with one kind of hostile input. The tests assert the growth of CPU time: quadratic
time grows fourfold for twice the size, so the limit lies between two and four. Small times are ignored, and the best of
several runs counts, so that a busy machine does not cause a failure.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from dockerd_guard.dockerd.config import without_key
from dockerd_guard.model.limits import NO_LIMITS
from dockerd_guard.observe.certificates import check_pair, validity
from dockerd_guard.observe.configured import observe_configured
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.assessment import plan_for
from dockerd_guard.policy.model import PolicyError
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.report import text
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from tests.differential.layout import Layout
from tests.support.pem import make_pair

FLOOR_S = 0.2
"""Times below this are ignored."""

FACTOR = 2.6
"""Maximum growth for twice the size, twice in a row. A single step is not growth."""

LIMIT_S = 20.0
"""Maximum time for half the size, however it grows."""

SCALE = int(os.environ.get("GROWTH_SCALE", "1"))
"""Factor for all sizes. With 8, lines have a megabyte."""

LINE = 128 * 1024 * SCALE
FILES = 5_000 * SCALE
ITEMS = 10_000 * SCALE

SYSTEM = "/usr/lib/systemd/system"
SERVICE, SOCKET = f"{SYSTEM}/docker.service", f"{SYSTEM}/docker.socket"
DROP_INS = "/etc/systemd/system/docker.service.d"
JSON, ENVIRONMENT = "/etc/docker/daemon.json", "/etc/default/docker"
EXEC = b"ExecStart=/usr/bin/dockerd "
STOCK = {SERVICE: b"[Service]\n" + EXEC + b"-H fd://\n", SOCKET: b"[Socket]\nListenStream=/run/docker.sock\n"}
POLICY = parse_policy(b"version: 1\nsockets: [unix:///run/docker.sock, {address: tcp://127.0.0.1:2376, tls: mutual}]\n")

Files = dict[str, bytes]


class Case(NamedTuple):
    """A host that grows: its files for a given size, and the maximum size."""

    name: str
    size: int
    files: Callable[[int], Files]


def service(*lines: bytes) -> Files:
    """Return a host with this docker.service."""
    return {**STOCK, SERVICE: b"[Service]\n" + b"\n".join(lines) + b"\n"}


def socket(*lines: bytes) -> Files:
    """Return a host with this docker.socket."""
    return {**STOCK, SOCKET: b"[Socket]\n" + b"\n".join(lines) + b"\n"}


def numbered(count: int, text: str) -> list[bytes]:
    """Return the text once for each number, with `{0}` replaced by the number, and `{1}` and `{2}` by its two bytes."""
    return [text.format(number, number >> 8 & 255, number & 255).encode() for number in range(count)]


def many(count: int, path: str, content: str) -> Files:
    """Return a host with that many files."""
    return {**STOCK, **{path.format(number): content.replace("{}", str(number)).encode() for number in range(count)}}


def repeated(piece: bytes, size: int) -> bytes:
    """Return `size` bytes of a repeated piece."""
    return (piece * size)[:size]


def arguments(name: str, piece: bytes) -> Case:
    return Case(f"a command line of {name}", LINE, lambda size: service(EXEC + repeated(piece, size)))


def value(key: str, piece: bytes) -> Case:
    return Case(f"a {key} of {piece.decode()}", LINE,
                lambda size: service(EXEC, key.encode() + b"=" + repeated(piece, size)))


def script(name: str, head: bytes, piece: bytes) -> Case:
    return Case(f"a shell's script of {name}", LINE, lambda size: service(
        b'ExecStart=/bin/sh -c "' + head + piece * (size // len(piece)) + b'"'))


def variables(name: str, piece: bytes) -> Case:
    return Case(f"a file of variables with {name}", LINE, lambda size: {
        **service(b"EnvironmentFile=/etc/default/docker", EXEC + b"$OPTIONS"),
        ENVIRONMENT: b"OPTIONS=" + repeated(piece, size)})


def daemon_json(name: str, size: int, make: Callable[[int], bytes]) -> Case:
    return Case(f"daemon.json of {name}", size, lambda size: {**STOCK, JSON: make(size)})


def listed(key: str, text: str) -> Callable[[int], bytes]:
    """Return a function for a daemon.json with a list of that many strings."""
    return lambda size: b'{"%s":[%s]}' % (key.encode(), b",".join(b'"%s"' % each for each in numbered(size, text)))


def string(key: str, head: bytes, piece: bytes, tail: bytes = b"") -> Callable[[int], bytes]:
    """Return a function for a daemon.json with a list of one long string."""
    return lambda size: b'{"%s":["%s%s%s"]}' % (key.encode(), head, piece * (size // len(piece)), tail)


CASES = (
    # One long line in a unit
    arguments("letters", b"a"), arguments("words", b"a "), arguments("quotes", b"'"), arguments("double quotes", b'"'),
    arguments("pairs of quotes", b"''"), arguments("quoted words", b'"a" '), arguments("backslashes", b"\\"),
    arguments("escapes", b"\\x41"), arguments("wrong escapes", b"\\q "), arguments("dollars", b"$"),
    arguments("open braces", b"${"), arguments("variables", b"$A "), arguments("braced variables", b"${A} "),
    arguments("colons in braces", b"${A:"), arguments("percents", b"%"), arguments("specifiers", b"%n"),
    arguments("semicolons", b"; "), arguments("commands", b"/a ; "), arguments("escaped semicolons", b"\\; "),
    arguments("brackets", b"["), arguments("bytes that are no UTF-8", b"\xff"), arguments("parents", b"../"),
    arguments("carriage returns", b"\r"), arguments("-H", b"-H x "), arguments("-H fd://", b"-H fd:// "),
    arguments("shorthands", b"-D "), arguments("one word of shorthands", b"-" + b"D" * 100),
    arguments("--label", b"--label a=b "),
    arguments("--add-runtime", b"--add-runtime a=b "), arguments("an unknown flag", b"--nothing "),
    arguments("hosts that are refused", b"--nothing -H tcp://1.2.3.4:1 "),
    *(value(key, piece) for key in (
        "Environment", "EnvironmentFile", "PassEnvironment", "UnsetEnvironment", "Sockets", "ExecStartPre", "User",
        "RuntimeDirectory", "SupplementaryGroups", "RootImagePolicy", "WorkingDirectory",
    ) for piece in (b"A=b ", b"\"\\%", b"/*[:")),
    # A shell script in a unit
    script("words", b"dockerd ", b"a "), script("quotes", b"dockerd ", b"'a'"), script("commands", b"", b"a;"),
    script("assignments", b"", b"A=b "), script("assignments each a command", b"", b"A=b;"),
    script("exports", b"", b"export A=b;"), script("comments", b"", b"#\\n"),
    script("redirections", b"dockerd ", b">a "),
    script("escapes", b"dockerd ", b"\\\\a"), script("variables", b"dockerd ", b"$$A"),
    script("double quotes", b"dockerd ", b'\\"a\\"'), script("one long double quote", b'dockerd \\"', b"\\\\\\\\$$A"),
    Case("a script of variables each a command", ITEMS, lambda size: service(
        b'ExecStart=/bin/sh -c "' + b"".join(numbered(size, "A{0}=b;")) + b'dockerd"')),
    Case("a script of exports, and commands after each", ITEMS, lambda size: service(
        b'ExecStart=/bin/sh -c "' + b"".join(numbered(size, "export A{0}=b; B=c /bin/true;")) + b'dockerd"')),
    Case("a script of as many commands as there are variables", ITEMS, lambda size: service(
        *numbered(size, "Environment=A{0}=b"), b'ExecStart=/bin/sh -c "' + b"B=c /bin/true;" * size + b'dockerd"')),
    Case("env(1) with variables", ITEMS, lambda size: service(
        b"ExecStart=/usr/bin/env " + b"".join(numbered(size, "A{0}=b ")) + b"dockerd")),
    # Many lines
    Case("sections", LINE, lambda size: {**STOCK, f"{DROP_INS}/x.conf": b"[X]\n" * (size // 4)}),
    Case("assignments", ITEMS, lambda size: service(EXEC, *numbered(size, "Environment=A{0}=b"))),
    Case("commands", ITEMS, lambda size: service(b"Type=oneshot", *[b"ExecStart=/bin/true"] * size)),
    Case("daemons", ITEMS // 4, lambda size: service(*numbered(size, "ExecStart=/usr/bin/dockerd -H tcp://:{0}"))),
    Case("continuations", LINE, lambda size: service(EXEC, b"Environment=" + b"\\\n" * (size // 2))),
    Case("words on as many lines", LINE, lambda size: service(EXEC, b"Environment=" + b"A=b \\\n" * (size // 6))),
    Case("arguments on as many lines", LINE, lambda size: service(EXEC + b"-D \\\n" * (size // 5))),
    Case("comments in a continuation", LINE, lambda size: service(EXEC, b"Environment=\\\n" + b"#\n" * (size // 2))),
    Case("lines without a key", LINE, lambda size: service(EXEC, b"x\n" * (size // 2))),
    Case("NULs", LINE, lambda size: service(EXEC, b"\0" * size)),
    Case("carriage returns", LINE, lambda size: service(EXEC, b"\r" * size)),
    Case("blanks", LINE, lambda size: service(EXEC, b" " * size)),
    Case("EnvironmentFile= of the same", ITEMS // 4, lambda size: {
        **service(EXEC, *[b"EnvironmentFile=-/etc/default/docker"] * size), ENVIRONMENT: b"A=b\n" * size}),
    Case("EnvironmentFile= of nothing", ITEMS, lambda size: service(
        EXEC, *numbered(size, "EnvironmentFile=-/etc/x/{0}"))),
    Case("patterns", ITEMS, lambda size: service(EXEC, *[b"EnvironmentFile=-/etc/" + b"[" * 200] * size)),
    Case("UnsetEnvironment=", ITEMS, lambda size: service(
        EXEC, *numbered(size, "Environment=A{0}=b\nUnsetEnvironment=A{0}"))),
    Case("Requires=", ITEMS, lambda size: service(EXEC, b"[Unit]", *numbered(size, "Requires=a{0}.socket"))),
    Case("Sockets=", ITEMS, lambda size: service(EXEC, *numbered(size, "Sockets=a{0}.socket"))),
    Case("ListenStream=", ITEMS, lambda size: socket(*numbered(size, "ListenStream=/run/{0}"))),
    Case("ListenStream= with ports", ITEMS, lambda size: socket(*numbered(size, "ListenStream=127.0.{1}.{2}:1"))),
    Case("hosts", ITEMS, lambda size: service(EXEC + b"".join(numbered(size, "-H tcp://127.0.{1}.{2}:1 ")))),
    Case("runtimes", ITEMS, lambda size: service(EXEC + b"".join(numbered(size, "--add-runtime a{0}=b ")))),
    Case("labels", ITEMS, lambda size: service(EXEC + b"".join(numbered(size, "--label a{0}=b ")))),
    # Few bytes that expand to many
    Case("ListenStream= and as many fd://", ITEMS // 4, lambda size: {
        **service(EXEC + b"--nothing " + b"-H fd:// " * size),
        SOCKET: socket(*[b"ListenStream=/run/a"] * size)[SOCKET]}),
    Case("words in a variable, as often", ITEMS // 4, lambda size: service(
        b"Environment='OPTIONS=" + b"a " * size + b"'", EXEC + b"$OPTIONS " * size)),
    Case("letters in a variable, as often in one word", ITEMS // 2, lambda size: service(
        b"Environment=OPTIONS=" + b"a" * size, EXEC + b"${OPTIONS}" * size)),
    Case("letters in a variable, as often in a script", ITEMS // 4, lambda size: service(
        b"Environment=OPTIONS=" + b"a" * size, b'ExecStart=/bin/sh -c "dockerd ' + b"$$OPTIONS" * size + b'"')),
    # Environment files
    variables("letters", b"a"), variables("quotes", b"'"), variables("open quotes", b'"a\n'),
    variables("backslashes", b"\\"),
    variables("escaped letters", b"\\a"), variables("blanks", b" "), variables("words", b"-D "),
    variables("assignments", b"\nA=b"), variables("keys alone", b"\nA"), variables("comments", b"\n#"),
    variables("comments that go on", b"\n#\\"), variables("lines that go on", b"a\\\n"),
    variables("quoted lines", b"'a\n'"),
    variables("wrong keys", b"\n1=2"), variables("carriage returns", b"\r"), variables("quoted parts", b"'a' "),
    variables("bytes that are no UTF-8", b"\xff"),
    # daemon.json
    daemon_json("lists in lists", 200_000, lambda size: b"[" * size),
    daemon_json("objects in objects", 200_000, lambda size: b'{"a":' * size),
    daemon_json("lists as deep as Go goes", 9_900, lambda size: b'{"labels":' + b"[" * size + b"]" * size + b"}"),
    daemon_json("objects as deep as Go goes", 9_900, lambda size: b'{"a":' * size + b"1" + b"}" * size),
    daemon_json("keys", ITEMS, lambda size: b"{" + b",".join(numbered(size, '"a{0}":1')) + b"}"),
    daemon_json("the same key", ITEMS, lambda size: b"{" + b",".join([b'"hosts":["fd://"]'] * size) + b"}"),
    daemon_json("keys inside", ITEMS, lambda size: b'{"x":{' + b",".join(numbered(size, '"a{0}":1')) + b"}}"),
    daemon_json("hosts", ITEMS, listed("hosts", "tcp://127.0.{1}.{2}:1")),
    daemon_json("hosts on as many lines", ITEMS, listed("hosts", "unix:///{0}\",\n\"fd://")),
    daemon_json("labels", ITEMS, listed("labels", "a{0}=b")),
    daemon_json("nulls", ITEMS, lambda size: b'{"hosts":[' + b",".join([b"null"] * size) + b"]}"),
    daemon_json("a long number", LINE, lambda size: b'{"mtu":' + b"1" * size + b"}"),
    daemon_json("a long fraction", LINE, lambda size: b'{"mtu":0.' + b"1" * size + b"e-5}"),
    daemon_json("a long path", LINE, string("hosts", b"unix://", b"/a")),
    daemon_json("a long IPv6 address", LINE, string("hosts", b"tcp://[", b":", b"]:1")),
    daemon_json("a long escaped host", LINE, string("hosts", b"tcp://", b"%ff", b":1")),
    daemon_json("a long name of a host", LINE, string("hosts", b"tcp://", b"a.", b"!:1")),
    daemon_json("a long registry", LINE, string("insecure-registries", b"", b"a-.")),
    daemon_json("a long mirror", LINE, string("registry-mirrors", b"http://", b"%41")),
    daemon_json("a long search domain", LINE, string("dns-search", b"", b"a.", b"-")),
    daemon_json("surrogates", LINE, string("hosts", b"", b"\\ud800")),
    daemon_json("backslashes", LINE, string("hosts", b"", b"\\")),
    daemon_json("quotes", LINE, lambda size: b'"' * size),
    daemon_json("blanks", LINE, lambda size: b" " * size + b"{"),
    daemon_json("UTF-16", LINE, lambda size: b"\xff\xfe" + b"[ " * (size // 2)),
    # Many files
    Case("drop-ins", FILES, lambda size: many(size, DROP_INS + "/{}.conf", "[Service]\nEnvironment=A{}=b\n")),
    Case("drop-ins that start dockerd", FILES, lambda size: many(
        size, DROP_INS + "/{}.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H tcp://:{}\n")),
    Case("drop-ins by a wrong name", FILES, lambda size: many(size, DROP_INS + "/{}.cnf", "x")),
    Case("drop-ins that are shadowed", FILES, lambda size: {
        **many(size, DROP_INS + "/{}.conf", ""), **many(size, "/run/systemd/system/docker.service.d/{}.conf", "[X]")}),
    Case("other socket units", FILES, lambda size: many(
        size, SYSTEM + "/a{}.socket", "[Socket]\nListenStream=/run/{}\n")),
    Case("socket units of docker.service", FILES, lambda size: many(
        size, SYSTEM + "/a{}.socket", "[Socket]\nListenStream=/run/{}\nService=docker.service\n")),
    Case("socket units of other services", FILES, lambda size: many(
        size, SYSTEM + "/a{}.socket", "[Socket]\nListenStream=/run/{}\nService=b{}.service\n")),
    Case("commands of other units", FILES, lambda size: many(
        size, SYSTEM + "/a{}.service", "[Service]\nExecStart=/usr/bin/socat TCP-LISTEN:1 UNIX:/run/docker.sock\n")),
    Case("files that match", FILES, lambda size: {
        **many(size, "/etc/default/{}", "A{}=b\n"), **service(EXEC, b"EnvironmentFile=/etc/default/*")}),
    Case("files that many stars match", FILES, lambda size: {
        **many(size, "/etc/default/" + "a" * 200 + "{}", "A=b\n"),
        **service(EXEC, b"EnvironmentFile=-/etc/default/" + b"*a" * 100 + b"b")}),
    Case("directories that match", FILES // 2, lambda size: {
        **many(size, "/etc/default/{}/x/y", "A=b\n"), **service(EXEC, b"EnvironmentFile=-/*/*/*/*/*")}),
    Case("paths of parents", 4_000, lambda size: service(EXEC + b"--config-file /" + b"etc/../" * size + b"x")),
)


def whole(root: Path) -> None:
    """Observe, judge, format and plan: everything that does not change the host."""
    with Rootfs(str(root), limits=NO_LIMITS) as rootfs:
        seen = Observation(rootfs, observe_configured(rootfs))
        with contextlib.redirect_stdout(io.StringIO()):
            for line in (*text.sockets(seen), *text.findings(judge(seen, POLICY), rootfs.read, colour=False)):
                print(line)
        plan_for(seen, POLICY)


def check_growth(measure: Callable[[int], float], size: int) -> None:
    """Assert that the times for a quarter, half and all of the size grow about linearly. Up to four runs, of which the
    best counts."""
    best = {part: measure(part) for part in (size // 4, size // 2)}
    assert best[size // 2] < LIMIT_S, f"{best[size // 2]:.1f} s for half the size"
    best[size] = measure(size)
    for _ in range(4):
        quarter, half, full = (best[part] for part in sorted(best))
        if full < FLOOR_S or full < FACTOR * half or half < FACTOR * quarter:
            return
        best = {part: min(seconds, measure(part)) for part, seconds in best.items()}
    raise AssertionError(f"{quarter:.3f} s for a quarter of the size, {half:.3f} s for half, {full:.3f} s for all")


def cpu_s(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_time_for_a_host_is_linear(case: Case, tmp_path: Path) -> None:
    def measure(size: int) -> float:
        root = tmp_path / str(size)
        if not root.exists():
            Layout(case.files(size), {}).write(root)
        return cpu_s(lambda: whole(root))

    check_growth(measure, case.size)


def refused(read: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(ValueError, PolicyError):
        read(data)


CERTIFICATE = make_pair().certificate
BEGIN = b"-----BEGIN CERTIFICATE-----\n"
READERS: dict[str, Callable[[bytes], object]] = {
    "certificates": validity, "keys": lambda data: check_pair(CERTIFICATE, data), "policy": parse_policy,
    "a removed key": lambda data: without_key(data + b'"a":1}', "hosts"),
}


@pytest.mark.parametrize(("reader", "head", "piece"), [
    ("certificates", b"", b"-----BEGIN A-----"),
    ("certificates", b"", BEGIN),
    ("certificates", BEGIN, b" "),
    ("certificates", BEGIN, b"\n-----END A-----"),
    ("certificates", b"-----BEGIN ", b"A"),
    ("certificates", BEGIN, b"MAAA"),
    ("keys", b"", b"-----BEGIN A-----\n-----END A-----\n"),
    ("keys", b"", b"-"),
    ("policy", b"version: 1\nsockets: ", b"["),
    ("policy", b"version: 1\nsockets: ", b"{"),
    ("policy", b"version: 1\nsockets:\n", b" - fd://\n"),
    ("policy", b"version: 1\nsockets:\n", b"- "),
    ("policy", b"a: &a [x]\n", b"b: &b [*a,*a]\n"),
    ("policy", b"version: 1\nsockets: [fd://]\n", b"x: 1\n"),
    ("policy", b"version: 1\nsockets: ", b"'"),
    ("policy", b"version: 1\nsockets: \"", b"\\x41"),
    ("policy", b"version: 1\nsockets: [unix:///", b"a"),
    ("policy", b"version: 1\nsockets: [", b"a: b, "),
    ("policy", b"", b"? "),
    ("policy", b"", b"#"),
    ("policy", b"- |\n", b"  a\n"),
    ("a removed key", b"{", b'"hosts":1,"a":2,'),
    ("a removed key", b"{", b'"hosts":1,'),
])
def test_time_of_a_reader_is_linear(reader: str, head: bytes, piece: bytes) -> None:
    read = READERS[reader]
    check_growth(lambda size: cpu_s(lambda: refused(read, head + piece * (size // len(piece)))), 2 * LINE)
