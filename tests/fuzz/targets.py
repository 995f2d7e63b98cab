"""The fuzz targets: functions of bytes. Any exception is a fault.

Each compares a reader with something that does not share its code: another parser, the text at a location, or the
result of reading the output again. tests/unit/test_fuzz.py runs each target with a few hundred inputs, `make fuzz` with
millions, guided by coverage.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dockerd_guard.dockerd import config, gojson, hosts
from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.dockerd.version import Version
from dockerd_guard.model.address import canonical, scope_of
from dockerd_guard.model.location import Location
from dockerd_guard.observe.certificates import check_pair, validity
from dockerd_guard.observe.configured import dockerd_syntax, observe_configured
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.assessment import plan_for
from dockerd_guard.plan.plan import complies
from dockerd_guard.policy.model import Policy, PolicyError
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.report import github, sarif, text
from dockerd_guard.report import json_output as report_json
from dockerd_guard.report.lint_result import LintResult
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from dockerd_guard.systemd import syntax
from dockerd_guard.systemd.assignments import Environment
from dockerd_guard.systemd.environment import resolve_environment
from dockerd_guard.systemd.environment_file import read_environment_file
from dockerd_guard.systemd.exec import expand
from dockerd_guard.systemd.sockets import parse_address
from dockerd_guard.systemd.units import load_service
from dockerd_guard.systemd.words import quote_word
from tests.fuzz import seeds

SYSTEMD = (252, 257, 262)
DOCKERD = (Version(19, 3, 15), Version(20, 10, 24), Version(23, 0, 18), Version(26, 1, 5), Version(28, 5, 2),
           Version(29, 7, 2), None)

SEPARATOR = b"\n=====\n"
"""Separates the files of a whole host in one input."""

UNIT_DIRECTORY = "/usr/lib/systemd/system"
PLACES = (
    f"{UNIT_DIRECTORY}/docker.service", f"{UNIT_DIRECTORY}/docker.socket", "/etc/docker/daemon.json",
    "/etc/systemd/system/docker.service.d/override.conf", "/etc/default/docker",
    "/etc/systemd/system/docker.socket.d/override.conf", f"{UNIT_DIRECTORY}/second.socket", "/etc/sysconfig/docker",
)
"""The paths of a whole host's files, in the order of the input."""

POLICIES = tuple(parse_policy(policy) for policy in (
    seeds.POLICY,
    b"version: 1\nsockets: [fd://]\n",
    b"version: 1\nsockets: [unix:///run/docker.sock, {address: tcp://0.0.0.0:2375, tls: none}]\n",
    b"version: 1\nsockets: [fd://]\nsocket_unit: {listen: [/run/docker.sock, '2375']}\n",
))


class Target(NamedTuple):
    """A target: the function, the seeds, and the tokens of its inputs."""

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], tuple[bytes, ...]]
    tokens: tuple[bytes, ...]


# -- locations ------------------------------------------------------------------------------------


def locations(value: object) -> Iterator[Location]:
    """Yield every Location inside a value, at any depth."""
    todo: list[object] = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, Location):
            yield item
        elif isinstance(item, gojson.Node):
            continue
        elif isinstance(item, (tuple, list)):
            todo += item
        elif isinstance(item, Mapping):
            todo += item.values()


def check_places(found: Iterator[Location], files: Mapping[str, bytes], *, newlines: str) -> None:
    """Assert that each location exists in its file: the line exists, and the columns are in it or just after it."""
    lines: dict[str, list[str]] = {}
    for place in found:
        if place.line == 1 and place.column == 1 and place.end_column == 1:
            continue  # the file as a whole, which may be empty or missing
        if place.file not in lines:
            assert place.file in files, place
            content = files[place.file].decode("utf-8", "surrogateescape")
            lines[place.file] = split_lines(content, newlines)
        assert 1 <= place.line <= len(lines[place.file]), place
        length = len(lines[place.file][place.line - 1])
        assert 1 <= place.column <= place.end_column <= length + 2, (place, length)


def split_lines(content: str, newlines: str) -> list[str]:
    """Split lines as the format does: `unit` as systemd's read_line_full() (CR, NL, or both in either order, each with
    an optional NUL; NUL), others at NL only."""
    return re.split("\r\n\0?|\n\r\0?|[\r\n]\0?|\0", content) if newlines == "unit" else content.split("\n")


def newlines_of(file: str) -> str:
    """Return the input split into the files of a host."""
    if file.endswith(".json"):
        return "json"
    return "unit" if "/systemd/" in file else "environment"


# -- targets --------------------------------------------------------------------------------------


def unit(data: bytes) -> None:
    """Unit files: only BadFileError, every location in the file, and the same result for each pass."""
    for version in SYSTEMD:
        problems: list[syntax.Problem] = []
        found: list[syntax.Setting] = []
        ends: list[Location] = []
        try:
            for setting in syntax.settings(data, "x", ("Unit", "Service"), problems, version):
                found.append(setting)
                ends += (setting.at(0, len(setting.value)), setting.at(len(setting.value), len(setting.value)))
        except syntax.BadFileError as error:
            ends.append(error.location)
        check_places(iter([*ends, *locations(problems), *locations(found)]), {"x": data}, newlines="unit")
        for setting in found:
            assert setting.key == setting.key.strip(syntax.WHITESPACE)
            assert setting.value == setting.value.strip(syntax.WHITESPACE)
            assert syntax.is_utf8(setting.key + setting.value)
    for _ in syntax.written_settings(data, "x", "ExecStart"):
        pass


def environment(data: bytes) -> None:
    """Environment files: never raises; a `verbatim` value is in the file at its location."""
    lines = split_lines(data.decode("utf-8", "surrogateescape"), "environment")
    for version in SYSTEMD:
        found = read_environment_file(data, "x", version)
        check_places(locations(found), {"x": data}, newlines="environment")
        for _, variable in found.assignments:
            place = variable.location
            if variable.verbatim and place is not None:
                assert lines[place.line - 1][place.column - 1:place.end_column - 1] == variable.value


def daemon_json(data: bytes) -> None:
    """JSON: accepts what Python's parser accepts (equally strict, apart from NaN), with the same values."""
    content = data.decode("utf-8", "surrogateescape")
    try:
        node = gojson.scan(content)
        gojson.after(content, node)
    except gojson.InvalidJson as error:
        assert 0 <= error.offset <= len(content)
        node = None
    try:
        expected = _strict(_plain(content))
    except RecursionError:
        return
    except ValueError:
        assert node is None, "Go refuses it"
    else:
        assert node is not None, "Go takes it"
        assert _value(node) == _without_surrogates(expected)
    for version in DOCKERD:
        file = config.parse("x", data, version)
        if data[:1] not in (b"\xff", b"\xfe") and data[:3] != b"\xef\xbb\xbf":
            check_places(locations((file.keys, file.hosts)), {"x": data}, newlines="json")
        config.conflict(file, (), version)


class _Pairs(list[tuple[str, Any]]):
    """Return an object as pairs, in order and with duplicate keys."""


def _strict(content: str) -> object:
    return json.loads(content, parse_constant=_refuse, parse_int=str, parse_float=str, object_pairs_hook=_Pairs)


def _refuse(name: str) -> None:
    raise ValueError(name)


def _value(node: gojson.Node) -> object:
    if node.kind == "object":
        return _Pairs([(key.text, _value(value)) for key, value in node.members()])
    return [_value(item) for item in node.items()] if node.kind == "array" else node.value


def _without_surrogates(value: object) -> object:
    """Replace lone surrogates, which only escapes can produce, by U+FFFD, as Go does."""
    if isinstance(value, _Pairs):
        return _Pairs([(_plain(key), _without_surrogates(item)) for key, item in value])
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return _plain(value) if isinstance(value, str) else value


def _plain(value: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", value)


def key_removal(data: bytes) -> None:
    """A key removed from daemon.json: it is gone, and the rest is valid, in order and byte for byte the same."""
    try:
        before = gojson.scan(content := data.decode())
        gojson.after(content, before)
    except (UnicodeDecodeError, gojson.InvalidJson):
        with contextlib.suppress(ValueError):
            config.without_key(data, "hosts")
        return
    if before.kind != "object" or content.startswith("\ufeff"):
        return
    names = [key.text for key, _ in before.members()]
    for name in {"hosts", *names[:2], *names[-1:]}:
        changed = config.without_key(data, name).decode()
        after = gojson.scan(changed)
        gojson.after(changed, after)
        kept = [(content[key.start:key.end], content[value.start:value.end])
                for key, value in before.members() if key.text != name]
        assert kept == [(changed[key.start:key.end], changed[value.start:value.end]) for key, value in after.members()]
        assert content[:before.start] == changed[:after.start]
        assert content[before.end:] == changed[after.end:]
        if len(kept) == len(names):
            assert changed == content


def policy(data: bytes) -> None:
    """YAML: a Policy or a PolicyError, each problem with a location in the file and a message of one line."""
    try:
        found: Policy = parse_policy(data, "x")
    except PolicyError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.location.line >= 1 <= problem.location.column
            assert "\n" not in problem.message
    else:
        assert found.sockets
        for socket in found.sockets:
            scope_of(canonical(socket.address))


def pem(data: bytes) -> None:
    """Certificates and keys: a result or ValueError."""
    with contextlib.suppress(ValueError):
        validity(data)
    for certificate in (_pems()[0], data):
        with contextlib.suppress(ValueError):
            check_pair(certificate, data)


def command_line(data: bytes) -> None:
    """dockerd's command line: always a result, and every flag has a place in it."""
    argv = tuple(data.decode("utf-8", "surrogateescape").split("\0"))
    for version in DOCKERD:
        daemon = resolve_daemon(argv, {"A": "b -H tcp://:1", "XDG_RUNTIME_DIR": "/run/user/1"}, _missing, version)
        assert daemon.starts or daemon.reason
        assert not (daemon.starts and daemon.certain and daemon.reason)
        for flag in daemon.flags:
            assert 0 <= flag.argument < len(argv)
            assert 0 <= flag.offset <= len(argv[flag.argument])


def _missing(path: str) -> bytes:
    raise FileNotFoundError(path)


def address(data: bytes) -> None:
    """Addresses of dockerd and systemd: normalized or refused. A normalized address stays the same."""
    value = data.decode("utf-8", "surrogateescape")
    for version in DOCKERD[:-1]:
        assert version is not None
        try:
            found = hosts.parse_host(value, version)
        except hosts.InvalidHost:
            continue
        hosts.listen_error(found, version)
        scope_of(found)
        assert canonical(canonical(found)) == canonical(found)
        # Go before 1.24.8 accepts `[[a]]`, and each pass removes one pair of brackets.
        if "%" not in value and "[[" not in value:
            with contextlib.suppress(hosts.InvalidHost):
                assert hosts.parse_host(found, version) == found
    for number in SYSTEMD:
        listen = parse_address(value, number)
        if listen is not None:
            assert canonical(dockerd_syntax(listen))


def word(data: bytes) -> None:
    """An argument written into a unit and read back is the same."""
    if b"\0" in data:
        return
    argument = data.decode("utf-8", "surrogateescape")
    lines = "".join(f"ExecStart={prefix}/bin/x {quote_word(argument, env_expand=not prefix)} ${{A}}\n"
                    for prefix in ("", ":"))
    content = f"[Service]\nType=oneshot\nEnvironment=A=$A\n{lines}".encode("utf-8", "surrogateescape")
    with Rootfs(_empty(), {f"{UNIT_DIRECTORY}/docker.service": content}) as rootfs:
        for version in SYSTEMD:
            service = load_service(rootfs, "docker.service", version)
            assert service.unit.load_state == "loaded", service.unit.reason
            variables = resolve_environment(service, rootfs, version)
            texts = [[item.text for item in expand(command, variables)] for command in service.exec_start]
            assert texts == [["/bin/x", argument, "$A"], ["/bin/x", argument, "${A}"]]


def value(data: bytes) -> None:
    """Any command and environment: a result, and the location of every argument in the file."""
    content = b"[Service]\nEnvironment=" + data + b"\nExecStart=/bin/x " + data + b"\nExecStart=" + data + b"\n"
    file = f"{UNIT_DIRECTORY}/docker.service"
    with Rootfs(_empty(), {file: content}) as rootfs:
        for version in SYSTEMD:
            service = load_service(rootfs, "docker.service", version)
            variables: Environment = resolve_environment(service, rootfs, version)
            arguments = [expand(command, variables) for command in service.written]
            check_places(locations((service, variables, arguments)), {file: content}, newlines="unit")


def host(data: bytes) -> None:
    """A whole host under one of POLICIES. One target for each policy, so that many are possible."""
    under(data, POLICIES[_picked(data) % len(POLICIES)])


def under(data: bytes, wanted: Policy) -> None:
    """A whole host: observed, judged, and formatted in every format. The planned changes, applied, leave nothing to
    plan."""
    files = dict(zip(PLACES, data.split(SEPARATOR), strict=False))
    dockerd, systemd = DOCKERD[_picked(data) % len(DOCKERD)], SYSTEMD[_picked(data) % len(SYSTEMD)]
    with Rootfs(_empty(), files) as rootfs:
        seen = Observation(rootfs, observe_configured(rootfs, dockerd=dockerd, systemd=systemd))
        for newlines in ("unit", "environment", "json"):
            check_places((place for place in locations(seen.configured) if newlines_of(place.file) == newlines),
                         files, newlines=newlines)
        _format(seen, wanted)
        plan = plan_for(seen, wanted)
        if plan.obstacles:
            assert not plan.changes
            return
        assert complies(plan.after.layer, wanted)
        with rootfs.changed({change.path: change.after for change in plan.changes}) as corrected:
            after = observe_configured(corrected, dockerd=dockerd, systemd=systemd)
            assert complies(after.layer, wanted)
            again = plan_for(Observation(corrected, after), wanted)
            assert not again.changes, [change.diff() for change in again.changes]
            assert not again.obstacles


def _picked(data: bytes) -> int:
    return (data[0] if data else 0) ^ len(data) & 255


def _format(seen: Observation, wanted: Policy) -> None:
    found = judge(seen, wanted)
    with contextlib.redirect_stdout(io.StringIO()):
        for line in (*text.sockets(seen), *text.findings(found, seen.rootfs.read, colour=False), text.summary(found)):
            assert not re.search("[\x00-\x1f\x7f-\x9f]", line), line
        result = LintResult("/", found, read=seen.rootfs.read)
        for output in (report_json.sockets(seen), report_json.lint_result(result), sarif.log([result])):
            json.loads(report_json.dump(output))
        for line in github.commands(result):
            assert "\n" not in line


@cache
def _empty() -> str:
    """Return an empty root, for trees that consist of changes only."""
    return tempfile.mkdtemp(prefix="dockerd-guard-fuzz-")


# -- all of them ----------------------------------------------------------------------------------


def _whole_hosts() -> tuple[bytes, ...]:
    stock = SEPARATOR.join((
        seeds.SERVICE, seeds.SOCKET, seeds.DAEMON_JSON, b"[Service]\nEnvironmentFile=-/etc/default/docker\n",
        seeds.ENVIRONMENT, b"[Socket]\nListenStream=2375\n", b"[Socket]\nListenStream=1\nService=docker.service\n"))
    cases = [{f"/{path.relative_to(root)}": path.read_bytes()
              for path in root.rglob("*") if path.is_file() and not path.is_symlink()} for root in seeds.roots()]
    return (stock, *(SEPARATOR.join(_at(files, place) for place in PLACES) for files in cases))


def _at(files: Mapping[str, bytes], place: str) -> bytes:
    """Return the content of a file of a case: this one, or any of the same kind."""
    if place in files:
        return files[place]
    kind = place.rpartition("/")[0].rpartition("/")[2]
    return next((content for path, content in files.items() if kind.endswith(".d") and f"/{kind}/" in path), b"")


@cache
def _pems() -> tuple[bytes, ...]:
    directory = Path(__file__).parent.parent / "data" / "tls"
    return tuple(path.read_bytes() for kind in ("*.crt", "*.key") for path in sorted(directory.glob(kind)))


TARGETS: Mapping[str, Target] = {target.name: target for target in (
    Target("unit", unit, seeds.units, seeds.UNIT_TOKENS),
    Target("environment", environment, seeds.environments, seeds.UNIT_TOKENS),
    Target("value", value, seeds.values, seeds.UNIT_TOKENS),
    Target("word", word, seeds.values, seeds.UNIT_TOKENS),
    Target("daemon-json", daemon_json, seeds.daemon_jsons, seeds.JSON_TOKENS),
    Target("key-removal", key_removal, seeds.daemon_jsons, seeds.JSON_TOKENS),
    Target("policy", policy, lambda: (seeds.POLICY,), seeds.YAML_TOKENS),
    Target("pem", pem, _pems, seeds.PEM_TOKENS),
    Target("command-line", command_line, seeds.command_lines, seeds.WORD_TOKENS),
    Target("address", address, seeds.addresses, seeds.WORD_TOKENS),
    Target("host", host, _whole_hosts, (*seeds.UNIT_TOKENS, *seeds.JSON_TOKENS[:20], SEPARATOR)),
)}
