"""Other ways to the Docker API than a dockerd: what counts as one, as tables and with real processes and sockets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest

from dockerd_guard.model.address import Binding, Scope, Tls, Via
from dockerd_guard.model.json_values import JsonError
from dockerd_guard.observe import access_paths, engine, listeners, processes, unix_peers
from dockerd_guard.observe.access_paths import AccessObserver, access_paths_of, evidence_in
from dockerd_guard.observe.api_names import names_of
from dockerd_guard.observe.containers import access_paths_of_containers, directories_of
from dockerd_guard.observe.listeners import ListenerTable, Owned
from dockerd_guard.observe.observation import AccessKind, AccessPath, Observation, Other, Process
from dockerd_guard.observe.processes import SocketOwner
from tests.machines.machine import wait_for
from tests.support.hosts import Host

NAMES = names_of(("unix:///run/docker.sock", "unix:///srv/api"))
WITH_TCP = names_of(("unix:///run/docker.sock", "tcp://0.0.0.0:2375"))

LISTEN = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def all_processes_are_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (listeners, processes):
        monkeypatch.setattr(module, "uid_and_namespace", lambda _: (0, False))
    # The parent is pytest, whose arguments may name this file.
    monkeypatch.setattr(access_paths, "members", lambda one: tuple({*processes.members(one)} - {os.getpid()}))


def started(stack: contextlib.ExitStack, *argv: str, **options: Any) -> subprocess.Popen[str]:
    process = stack.enter_context(
        subprocess.Popen(argv, text=True, stdout=subprocess.PIPE, start_new_session=True, **options))
    stack.callback(kill_group, process.pid)
    return process


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def listening(stack: contextlib.ExitStack, *argv: str, **options: Any) -> tuple[int, str]:
    """Start a process that prints the port it listens on. Returns its PID and the address."""
    process = started(stack, sys.executable, *argv, **options)
    assert process.stdout is not None
    return process.pid, f"tcp://127.0.0.1:{process.stdout.readline().strip()}"


# --- what names the API socket --------------------------------------------------------------------


@pytest.mark.parametrize(("text", "found"), [
    ("UNIX-CONNECT:/var/run/docker.sock", "/var/run/docker.sock"),
    ("UNIX-CONNECT:/run/docker.sock,mode=600", "/run/docker.sock"),
    ("server unix:/srv/api;", "/srv/api"),
    ("/srv/api.py", ""),
    ("/srv/api/other", ""),
    ("/host/run/docker.sock", "/host/run/docker.sock"),
    ("docker.sock", "docker.sock"),
    ("/run/docker.sock.bak", ""),
    ("/run/docker.socket", ""),
    ("nothing", ""),
])
def test_names_of_the_api_socket(text: str, found: str) -> None:
    assert NAMES.find(text.encode()) == found


@pytest.mark.parametrize("unit", [
    "/run/docker.sock" * 50_000, "127.0." * 200_000, "localhost:" * 100_000, "a/" * 500_000, "docker." * 150_000])
def test_search_takes_linear_time(unit: str) -> None:
    start = time.monotonic()
    WITH_TCP.find(unit.encode())
    assert time.monotonic() - start < 2


def process(*argv: str, unit: str = "", executable: str = "/usr/bin/x", uid: int = 0, **environ: str) -> Process:
    return Process(2**22 + 1, argv, environ, 0, unit, executable, 1, uid=uid)


@pytest.mark.parametrize(("one", "evidence"), [
    (process("socat", "TCP-LISTEN:1", "UNIX-CONNECT:/run/docker.sock"), "command line names /run/docker.sock"),
    (process("relay", TARGET="unix:///srv/api"), "environment variable TARGET names /srv/api"),
    (process("relay", DOCKER_HOST="unix:///run/docker.sock"), ""),
    (process("relay"), ""),
])
def test_evidence(one: Process, evidence: str) -> None:
    assert evidence_in(one, NAMES) == evidence


def test_evidence_never_contains_another_argument() -> None:
    one = process("relay", "--password=hunter2", "/run/docker.sock", TOKEN="hunter2 /run/docker.sock")
    assert "hunter2" not in evidence_in(one, NAMES) + evidence_in(one._replace(argv=()), NAMES)


def test_file_of_a_process_names_the_socket(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    script = tmp_path / "relay.py"
    script.write_text(f"{LISTEN}\nAPI = '/run/docker.sock'\n")
    for argv, directory in (((str(script),), None), (("relay.py",), tmp_path)):
        pid, _ = listening(stack, *argv, cwd=directory)
        one = listeners.described(pid)
        assert one is not None
        uid = os.getuid()
        expected = f"file {script} names /run/docker.sock" if uid == 0 else ""
        assert evidence_in(one, NAMES) == expected


class Listener(NamedTuple):
    """A listening process and what is reported of it: the kind, and whether the port is known to lead to the API."""

    one: Process
    port: int
    kind: AccessKind | None
    serves_api: bool = False


@pytest.mark.parametrize("case", [
    Listener(process("socat", "UNIX:/run/docker.sock", executable="/usr/bin/socat1"), 5000, AccessKind.FORWARDER, True),
    Listener(process("traefik", "/run/docker.sock", executable="/usr/bin/traefik"), 80, AccessKind.FORWARDER),
    Listener(process("x", "/run/docker.sock", executable="/usr/sbin/sshd"), 22, None),
    Listener(process("x", executable="/usr/bin/anything"), 5000, None),
    Listener(process("x", executable="/usr/bin/anything"), 2375, AccessKind.API_PORT),
    Listener(process("x", executable="/usr/bin/anything", uid=1000), 2376, AccessKind.API_PORT),
    Listener(process("x", executable="/usr/bin/nc", unit="docker.service"), 5000, AccessKind.IN_DOCKER_SERVICE),
    Listener(process("x", executable="/usr/bin/containerd", unit="docker.service"), 5000, None),
], ids=lambda case: f"{case.one.executable} {case.port}")
def test_listening_process(case: Listener) -> None:
    found = list(access_paths_of(Owned(case.one, {7: f"tcp://0.0.0.0:{case.port}"}), NAMES, frozenset()))
    assert [(path.kind, path.serves_api) for _, path in found] == (
        [(case.kind, case.serves_api)] if case.kind is not None else [])


# --- the kernel -----------------------------------------------------------------------------------


def test_peers_of_accepted_connections(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    def connection(path: Path) -> tuple[socket.socket, socket.socket]:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen()
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(path))
        return client, stack.enter_context(server.accept()[0])

    (api, accepted), (_, other) = connection(tmp_path / "api"), connection(tmp_path / "other")
    inodes = [os.fstat(each.fileno()).st_ino for each in (accepted, other)]
    found = unix_peers.clients([*inodes, 2**31], {f"unix://{tmp_path}/api"})
    assert found == {os.fstat(api.fileno()).st_ino}


def test_owner_of_a_new_listener_is_found(stack: contextlib.ExitStack) -> None:
    table = ListenerTable(os.getpid())
    before = {owned.process.pid for owned in table.look()}
    pid, address = listening(stack, "-c", LISTEN)
    assert pid not in before
    assert {owned.process.pid: list(owned.addresses.values()) for owned in table.look()}[pid] == [address]
    assert address in {each for owned in table.look() for each in owned.addresses.values()}


def test_a_socket_that_listens_since_the_last_look_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its inode number: the same address may be another program's by now."""
    first, second = (SocketOwner("tcp://0.0.0.0:7000", inode) for inode in (1, 2))
    table = ListenerTable(os.getpid())
    for now, is_new in ([], False), ([first], True), ([first, second], True), ([second], True), ([], False):
        monkeypatch.setattr(listeners, "tcp_listeners", lambda _, now=now: tuple(now))
        assert table.has_new() is is_new
    monkeypatch.setattr(listeners, "tcp_listeners", lambda _: (first,))
    table.look()
    for now, is_new in ([first], False), ([], False), ([first, second], True), ([second], True):
        monkeypatch.setattr(listeners, "tcp_listeners", lambda _, now=now: tuple(now))
        assert table.has_new() is is_new


def test_listeners_of_root_are_found_whatever_others_open(
        stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    pid, _ = listening(stack, "-c", LISTEN)
    monkeypatch.setattr(listeners, "MAX_OTHER_DESCRIPTORS", 0)
    monkeypatch.setattr(listeners, "_ranked", lambda _: iter([(True, os.getpid()), (False, pid)]))
    assert [owned.process.pid for owned in ListenerTable(os.getpid()).look()] == [pid]
    monkeypatch.setattr(listeners, "_ranked", lambda _: iter([(True, pid)]))
    assert ListenerTable(os.getpid()).look() == ()


def test_search_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "DEADLINE_S", -1.0)
    table = ListenerTable(os.getpid())
    assert (table.look(), table.is_complete) == ((), False)


def test_process_that_ends_meanwhile_is_skipped(stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    pid, _ = listening(stack, "-c", LISTEN)
    monkeypatch.setattr(listeners, "described", lambda _: None)
    assert ListenerTable(os.getpid()).look() == ()
    assert processes.members(process("x")._replace(pid=2**22 + 1))[:1] == (2**22 + 1,)
    assert pid


class Look(NamedTuple):
    observer: AccessObserver
    seen: Observation

    def paths(self, *answering: str) -> list[tuple[AccessKind, str, bool]]:
        found = self.observer.look(self.seen, lambda address: address in answering, {})
        return [(path.kind, path.address, path.serves_api) for path in found]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    observer = AccessObserver()
    observer.listeners = ListenerTable(os.getpid())
    return Look(observer, Host(tmp_path / "host").see())


def test_relay_is_proven_by_a_request(stack: contextlib.ExitStack, look: Look) -> None:
    _, address = listening(stack, "-c", f"{LISTEN}# /run/docker.sock")
    assert (AccessKind.FORWARDER, address, False) in look.paths()
    # Not asked again at once.
    assert (AccessKind.FORWARDER, address, False) in look.paths(address)
    _, other = listening(stack, "-c", f"{LISTEN}# /run/docker.sock")
    assert (AccessKind.FORWARDER, other, True) in look.paths(other)
    assert (AccessKind.FORWARDER, other, True) in look.paths()


def test_program_that_opens_the_sockets_of_a_dockerd_is_one(
        stack: contextlib.ExitStack, look: Look, tmp_path: Path) -> None:
    path = tmp_path / "libnetwork" / f"{'ab' * 6}.sock"
    path.parent.mkdir()
    opened = f"own = __import__('socket').socket(1)\nown.bind('{path}')\nown.listen()\n"
    _, address = listening(stack, "-c", opened + LISTEN)
    found = {path.address: path for path in look.observer.look(look.seen, lambda _: None, {})}
    assert found[address].evidence == f"it listens on unix://{path}, as dockerd does"
    assert found[address].is_apart


@pytest.mark.parametrize(("opened", "named", "is_apart"), [
    ("libnetwork/abababababab.sock", "", True), ("libnetwork/abababababab.sock", "two/docker.sock", True),
    ("libnetwork/abababababab.sock", "/run/docker.sock", False),
    ("two/docker.sock", "", False), ("x.sock", "/run/docker.sock", False)])
def test_only_a_dockerd_of_its_own_is_asked_while_docker_service_is_stopped(  # noqa: PLR0913, PLR0917 -- a row
        stack: contextlib.ExitStack, look: Look, tmp_path: Path, opened: str, named: str, is_apart: bool) -> None:
    bound = [tmp_path / path for path in sorted({opened, "two/docker.sock"})]
    for parent in {path.parent for path in bound} - {tmp_path}:
        parent.mkdir()
    own = "import socket as own\nheld = [own.socket(1) for _ in range(2)]\n" + "".join(
        f"held[{number}].bind('{path}'); held[{number}].listen()\n" for number, path in enumerate(bound))
    _, address = listening(stack, "-c", f"{own}{LISTEN}# {named and tmp_path / named} ", f"{tmp_path}/later.conf")
    for text, expected in ("", is_apart), ("/srv/x", is_apart), ("/run/docker.sock", False):
        (tmp_path / "later.conf").write_text(text)
        found = look.observer.look(look.seen, lambda _: None, {})
        assert [path.is_apart for path in found if path.address == address] == [expected]


def test_parent_names_the_socket_for_a_child(stack: contextlib.ExitStack, look: Look) -> None:
    shell = started(stack, "sh", "-c", f"{sys.executable} -c '{LISTEN}'; true /run/docker.sock")
    assert shell.stdout is not None
    address = f"tcp://127.0.0.1:{shell.stdout.readline().strip()}"
    found = look.paths()
    assert (AccessKind.FORWARDER, address, False) in found


USER_OF_THE_API = """
import socket, sys
api = socket.socket(socket.AF_UNIX)
api.connect(sys.stdin.readline().strip())
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.readline()
api.close()
print("closed", flush=True)
sys.stdin.readline()
"""


def test_connection_to_the_api_socket_counts_until_the_program_ends(
        stack: contextlib.ExitStack, look: Look, tmp_path: Path) -> None:
    """This process is a dockerd with an API socket, the other one is connected to it."""
    server = stack.enter_context(socket.socket(socket.AF_UNIX))
    server.bind(str(tmp_path / "api"))
    server.listen()
    address = f"unix://{tmp_path}/api"
    dockerd = Process(os.getpid(), (), {}, 0, "")
    seen = look.seen._replace(others=(Other(dockerd, (Binding(address, Scope.UNIX, Tls.NONE, Via.FLAG),)),))
    user = started(stack, sys.executable, "-c", USER_OF_THE_API, stdin=subprocess.PIPE)
    assert user.stdin is not None and user.stdout is not None
    print(tmp_path / "api", file=user.stdin, flush=True)
    connection, _ = server.accept()
    stack.enter_context(connection)
    port = f"tcp://127.0.0.1:{user.stdout.readline().strip()}"

    def evidence() -> list[str]:
        return [path.evidence for path in look.observer.look(seen, lambda _: None, {}) if path.address == port]

    assert evidence() == ["it is connected to the API socket"]
    print(file=user.stdin, flush=True)
    assert user.stdout.readline() == "closed\n"
    assert evidence() == ["it is connected to the API socket"]
    user.kill()
    user.wait()
    assert evidence() == []


@pytest.mark.parametrize(("program", "unit", "is_asked"), [
    ("dockerd", "docker.service", False), ("socat", "docker.service", True), ("dockerd", "other.service", True)])
def test_dockerd_that_started_after_the_observation_gets_no_request_without_tls(
        look: Look, monkeypatch: pytest.MonkeyPatch, program: str, unit: str, is_asked: bool) -> None:
    new = process(program, unit=unit, executable=f"/usr/bin/{program}")
    monkeypatch.setattr(look.observer.listeners, "look", lambda: (Owned(new, {7: "tcp://0.0.0.0:2376"}),))
    requests: list[str] = []
    look.observer.look(look.seen, requests.append, {}, ("tcp://0.0.0.0:2376",))
    assert requests == ["tcp://0.0.0.0:2376"] * is_asked


@pytest.mark.parametrize(("answers", "expected"), [
    ([True, None, True], ["serves", "assumed", "serves"]),
    ([True, False, None], ["serves", "does not", "does not"]),
    ([None, True, True], ["does not", "serves", "serves"]),
])
def test_answer_of_a_port_counts_until_there_is_another(
        stack: contextlib.ExitStack, look: Look, monkeypatch: pytest.MonkeyPatch, answers: list[bool | None],
        expected: list[str]) -> None:
    monkeypatch.setattr(access_paths, "SILENCE_S", 0.0)
    monkeypatch.setattr(access_paths, "RETRY_S", 0.0)
    _, address = listening(stack, "-c", f"{LISTEN}# /run/docker.sock")
    for answer, said in zip(answers, expected, strict=True):
        found = look.observer.look(look.seen, lambda asked, now=answer: now if asked == address else None, {})  # type: ignore[misc]
        path, = (path for path in found if path.address == address)
        assert ("assumed" if path.is_assumed else "serves" if path.serves_api else "does not") == said


@pytest.mark.parametrize(("answer", "found"), [(True, [(True, False)]), (False, []), (None, [(True, True)])])
def test_address_that_was_blocked_before_a_restart_of_the_agent_is_asked_again(
        stack: contextlib.ExitStack, look: Look, answer: bool | None, found: list[tuple[bool, bool]]) -> None:
    """Without an answer it stays, as long as no dockerd runs that could give one."""
    _, address = listening(stack, "-c", LISTEN)
    paths = look.observer.look(look.seen, lambda _: answer, {}, [address])
    assert [(path.serves_api, path.is_assumed) for path in paths if path.address == address] == found


# --- containers -----------------------------------------------------------------------------------


def test_directories_that_contain_the_socket() -> None:
    assert directories_of(["/var/run/docker.sock", "/srv/x/api"]) == {
        "/", "/run", "/var/run", "/run/docker.sock", "/var/run/docker.sock", "/srv", "/srv/x", "/srv/x/api"}


def row(name: str, source: str = "", ports: tuple[str, ...] = (), network: str = "bridge") -> dict[str, Any]:
    return {"Id": (name * 64)[:64], "Names": [f"/{name}"], "Image": f"{name}:1",
            "Mounts": [{"Source": source}] if source else [], "HostConfig": {"NetworkMode": network},
            "Ports": [{"IP": port.rpartition(":")[0], "PublicPort": int(port.rpartition(":")[2]), "PrivatePort": 1,
                       "Type": "tcp"} for port in ports] + [{"PrivatePort": 9, "Type": "tcp"}]}


def containers(*rows: dict[str, Any], listening: Any = None) -> list[str]:
    def query(path: str) -> object:
        filters = json.loads(unquote(path.partition("=")[2]))
        if "volume" in filters:
            return [each for each in rows if any(mount["Source"] in filters["volume"] for mount in each["Mounts"])]
        if "id" in filters:
            return [each for each in rows if each["Id"] in filters["id"]]
        return [each for each in rows if any(str(port.get("PublicPort")) in filters["publish"]
                                             for port in each["Ports"])]

    found = access_paths_of_containers(query, ["/run/docker.sock"], (2375, 2376), listening or {})
    return [f"{path.kind} {path.container} {path.address} {path.is_published}" for path in found]


@pytest.mark.parametrize(("rows", "found"), [
    ((row("a", "/run/docker.sock", ("0.0.0.0:9000", ":::9000")),),
     ["container a tcp://0.0.0.0:9000 True", "container a tcp://[::]:9000 True"]),
    ((row("a", "/var/run", ("127.0.0.1:9000",)),), ["container a tcp://127.0.0.1:9000 True"]),
    ((row("a", "/", (), "host"),), ["container a  False"]),
    ((row("a", "/run/docker.sock"), row("b", "/srv", ("0.0.0.0:80",))), []),
    ((row("a", "/run/docker.sock", (), f"container:{('b' * 64)}"), row("b", "", ("0.0.0.0:80",))),
     ["container a tcp://0.0.0.0:80 True"]),
    ((row("b", "", ("0.0.0.0:2375",)),), ["api-port b tcp://0.0.0.0:2375 True"]),
    ((row("a", "/run/docker.sock", ("0.0.0.0:2375",)),), ["container a tcp://0.0.0.0:2375 True"]),
])
def test_containers(rows: tuple[dict[str, Any], ...], found: list[str]) -> None:
    assert containers(*rows) == found


def test_container_with_the_network_of_the_host_has_the_address_of_its_process() -> None:
    assert containers(row("a", "/", (), "host"), listening={"a" * 12: ["tcp://[::]:7000"]}) == [
        "container a tcp://[::]:7000 False"]


def test_ten_thousand_containers_take_bounded_time() -> None:
    start = time.monotonic()
    rows = [row(f"c{number}", "/run/docker.sock", ("0.0.0.0:80",)) for number in range(10_000)]
    found = access_paths_of_containers(lambda path: rows, ["/run/docker.sock"], (2375,), {})
    assert len(found) <= 1000
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("answer", [
    {}, [1], [{"Id": 1}], [{"Id": "a", "Mounts": 1}], None, "x", [{"Id": "a", "Ports": [{"PublicPort": "1"}]}],
    [{"Id": "a", "Mounts": [{"Source": "/run"}], "Ports": [{"Type": "tcp", "IP": "::", "PublicPort": 2**40}]}],
])
def test_engine_that_lies_is_not_believed(answer: object) -> None:
    with pytest.raises(JsonError):
        access_paths_of_containers(lambda path: answer, ["/run/docker.sock"], (2375,), {})


def test_silent_engine_is_not_asked_at_each_look_and_its_last_answer_counts(
        look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = [[row("a", "/run/docker.sock", ("10.0.0.5:9000",))], [], OSError("timed out"), [], []]
    asked: list[str] = []

    def answer(address: str, path: str, pids: object) -> object:
        asked.append(address)
        value = answers.pop(0)
        if isinstance(value, OSError):
            raise value
        return value

    monkeypatch.setattr(engine, "answer", answer)
    for count in (2, 3, 3):
        found = look.observer.look(look.seen, lambda _: False, {"unix:///run/docker.sock": (1,)})
        assert [path.address for path in found if path.kind is AccessKind.CONTAINER] == ["tcp://10.0.0.5:9000"]
        assert len(asked) == count


# --- every dockerd --------------------------------------------------------------------------------


def test_other_names_and_children_of_the_executable_are_daemons(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    dockerd, engine_file = tmp_path / "dockerd", tmp_path / "engine"
    shutil.copy("/bin/dash" if os.path.exists("/bin/dash") else "/bin/sh", dockerd)
    dockerd.chmod(0o755)
    os.link(dockerd, engine_file)
    # A child with arguments of its own, and one that has not called execve(2): a subshell.
    main = started(stack, str(dockerd), "-c", f"{dockerd} -c 'echo $$; sleep 60; true' & (sleep 60; true) & wait")
    renamed = started(stack, str(engine_file), "-c", "sleep 60; true")
    untar = started(stack, "docker-untar", "-c", "sleep 60; true", executable=str(dockerd))
    assert main.stdout is not None
    child = int(main.stdout.readline())
    wait_for(lambda: len(processes.members(listeners.described(main.pid) or process("x"))) == 4, "subshell")
    found = processes.daemons(main.pid)
    ours = {pid for pid, one in found.items() if str(tmp_path) in one.executable}
    assert ours == {main.pid, renamed.pid, child}
    assert untar.pid not in found


@pytest.mark.parametrize(("cgroup", "unit"), [
    ("0::/system.slice/docker.service", "docker.service"),
    ("1:name=systemd:/system.slice/a.service\n0::/", "a.service"),
    ("1:name=systemd:/outer\n0::/system.slice/a.service", "a.service"),
    ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service", "user@1000.service"),
    ("0::/user.slice/user-0.slice/session-3.scope", "session-3.scope"),
    (f"0::/system.slice/docker-{'a' * 64}.scope/init.scope", f"docker-{'a' * 64}.scope"),
    ("0::/", ""),
])
def test_unit_of_a_process(cgroup: str, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_cgroup_root", lambda: "")
    assert processes._unit(processes._cgroup(cgroup)) == unit


@pytest.mark.parametrize(("cgroup", "container"), [
    (f"/system.slice/docker-{'a' * 64}.scope", "a" * 64),
    (f"/docker/{'b' * 64}", "b" * 64),
    (f"/docker/{'b' * 64}/nested", "b" * 64),
    (f"/system.slice/docker-{'a' * 63}.scope", ""),
    ("/system.slice/docker.service", ""),
])
def test_container_of_a_process(cgroup: str, container: str) -> None:
    assert process("x")._replace(cgroup=cgroup).container == container


def test_access_path_has_no_field_for_arguments() -> None:
    assert not {name for name in AccessPath._fields if re.search("arg|env", name)}
