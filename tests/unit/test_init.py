"""`init`: the policy declares the sockets of the host, marks dangerous ones, and replaces no file."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from dockerd_guard.commands._common import observe_files
from dockerd_guard.commands.init import adopt
from dockerd_guard.model.address import Binding, Tls, Via, scope_of
from dockerd_guard.observe.observation import LISTENING, Layer, Listening, Observation
from dockerd_guard.plan.assessment import plan_for
from dockerd_guard.policy.model import POLICY_FILE, Mode
from dockerd_guard.policy.reader import parse_policy
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.rules.judge import judge
from tests.differential.generate import generate
from tests.support import corpus, golden, shared
from tests.support.command_line import Call
from tests.support.hosts import Host
from tests.support.schema import schema_errors

pytest_plugins = ["tests.support.fixtures"]

SEED = 20261123
GENERATED = 60
TLS = "--tlsverify --tlscacert=/pki/ca --tlscert=/pki/cert --tlskey=/pki/key"
PORT = "[Socket]\nListenStream=2375\n"


def lines(text: str, section: str) -> list[str]:
    """The lines below a key of the policy, up to the next key."""
    return text.partition(f"\n{section}:\n")[2].partition("\n\n")[0].split("\n")


def codes(seen: Observation, text: str) -> list[str]:
    return sorted({finding.code for finding in judge(seen, parse_policy(text.encode()))})


def missing(seen: Observation, text: str) -> list[str]:
    """Results of lint and diff with a policy that its comments do not contain."""
    policy = parse_policy(text.encode())
    plan = plan_for(seen, policy)
    comments = " ".join(text.replace("#", " ").split())
    words = codes(seen, text)
    words += [change.path for change in plan.changes]
    words += [" ".join(obstacle.split()) for obstacle in plan.obstacles if obstacle.isprintable()]
    return [word for word in words if " ".join(word.replace("#", " ").split()) not in comments]


# -- what is declared ------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "declared", "found"), [
    ("-H fd://", ["fd://"], []),
    ("", ["unix:///var/run/docker.sock"], []),
    ("-H fd:// -H tcp://0.0.0.0:2375", ["fd://", "tcp://0.0.0.0:2375 none"], ["DG103"]),
    ("-H fd:// -H tcp://127.0.0.1:2375", ["fd://", "tcp://127.0.0.1:2375 none"], ["DG103"]),
    ("-H tcp://[::1]:2376 --tls --tlscert=/c --tlskey=/k", ["tcp://[::1]:2376 mutual"], ["DG206"]),
    ("-H tcp://[::1]:2376 --tlsverify=false --tlscert=/c --tlskey=/k", ["tcp://[::1]:2376 server"],
     ["DG103", "DG105", "DG206"]),
    (f"-H fd:// -H tcp://10.0.0.5:2376 {TLS}", ["fd://", "tcp://10.0.0.5:2376 mutual"], ["DG206"]),
    ("-H fd:// -H unix:///run/docker.sock", ["fd://"], ["DG208"]),
    ("-H unix://run/docker.sock", ["unix:///run/docker.sock"], ["DG101", "DG102", "DG203"]),
    ("-H unix://@docker", ["unix://@docker"], ["DG102", "DG203"]),
    ("-H tcp://docker.example.org:2376", ["fd://"], ["DG101", "DG102", "DG103"]),
    ("-H tpc://0.0.0.0:2375", ["fd://"], ["DG102", "DG203"]),
])
def test_current_sockets_are_declared(stock_host: Host, arguments: str, declared: list[str], found: list[str]) -> None:
    stock_host.start(arguments)
    seen = stock_host.see()
    _, text = adopt(seen)
    policy = parse_policy(text.encode())
    assert policy.mode is Mode.OBSERVE
    assert [f"{one.address} {one.tls}" if one.is_tcp else one.address for one in policy.sockets] == declared
    assert codes(seen, text) == found
    assert missing(seen, text) == []


def test_dangerous_sockets_are_marked_with_a_safer_alternative(stock_host: Host) -> None:
    stock_host.start("-H fd:// -H tcp://0.0.0.0:2375")
    _, text = adopt(stock_host.see())
    golden.check(text, "init/open-port.yaml")


def test_the_safer_alternatives_are_a_valid_policy(stock_host: Host) -> None:
    """They replace the dangerous lines, parse, and lead to a plan."""
    stock_host.start("-H fd:// -H tcp://0.0.0.0:2375")
    seen = stock_host.see()
    text = adopt(seen)[1]
    dangerous = next(line for line in text.split("\n") if line.startswith("  - address: tcp://0.0.0.0:2375"))
    safer = text.replace("  # - address", "  - address").replace("  #   tls: mutual", "    tls: mutual") \
        .replace(f"{dangerous}\n    tls: none\n", "")
    policy = parse_policy(safer.encode())
    assert [(one.address, one.tls) for one in policy.sockets[1:]] == [("tcp://0.0.0.0:2376", Tls.MUTUAL)]
    changed, = plan_for(seen, policy).changes
    assert b"-H tcp://0.0.0.0:2376 --tlsverify --tlscacert=/etc/docker/ca.pem" in (changed.after or b"")


def test_tls_files_are_those_dockerd_is_given(stock_host: Host) -> None:
    stock_host.start(f"-H tcp://10.0.0.5:2376 {TLS}")
    assert lines(adopt(stock_host.see())[1], "tls") == ["  ca: /pki/ca", "  cert: /pki/cert", "  key: /pki/key"]


def test_a_port_that_comes_in_through_fd(stock_host: Host) -> None:
    stock_host.put("/etc/systemd/system/docker.socket.d/port.conf", PORT)
    text = adopt(stock_host.see())[1]
    golden.check(text, "init/socket-unit-port.yaml")
    assert codes(stock_host.see(), text) == ["DG103"]


def test_a_second_socket_unit(stock_host: Host) -> None:
    stock_host.put("/etc/systemd/system/docker-tcp.socket", PORT + "Service=docker.service\n[Install]\n"
             "WantedBy=sockets.target\n")
    wants = stock_host.root / "etc/systemd/system/docker.service.wants"
    wants.mkdir(parents=True)
    (wants / "docker-tcp.socket").symlink_to("/etc/systemd/system/docker-tcp.socket")
    seen = stock_host.see()
    text = adopt(seen)[1]
    assert "docker-tcp.socket:2" in text
    assert missing(seen, text) == []
    assert not plan_for(seen, parse_policy(text.encode())).changes


def test_a_host_that_cannot_start(stock_host: Host) -> None:
    stock_host.put("/etc/docker/daemon.json", '{"hosts": ["tcp://10.0.0.5:2375"]}')
    seen = stock_host.see()
    _, text = adopt(seen)
    assert "docker.service does not start with these files; dockerd refuses" in text
    assert [one.address for one in parse_policy(text.encode()).sockets] == ["fd://", "tcp://10.0.0.5:2375"]
    assert "DG201" in codes(seen, text)
    assert missing(seen, text) == []


@pytest.mark.parametrize("words", ["-H tcp://0.0.0.0:2375 -H tcp://127.0.0.1:2375",
                                   "-H unix:///run/../run/docker.sock -H fd:// -H unix:///run/a#b -H 'unix:///run/ c'",
                                   "-H unix:///run/\x1b[2J -H unix:///run/'x'"])
def test_what_a_policy_cannot_contain_is_left_out_with_the_reason(stock_host: Host, words: str) -> None:
    stock_host.start(words)
    seen = stock_host.see()
    text = adopt(seen)[1]
    assert "\x1b" not in text
    assert missing(seen, text) == []


def listening(seen: Observation, *addresses: str) -> Observation:
    bindings = tuple(Binding(address, scope_of(address), Tls.NONE, Via.FLAG) for address in addresses)
    return seen._replace(listening=Listening(Layer(LISTENING, True, None, None, (), addresses, bindings)))


def test_a_socket_in_no_file_is_commented_and_not_declared(stock_host: Host) -> None:
    seen = listening(stock_host.see(), "unix:///run/docker.sock", "tcp://[::]:2375")
    text = adopt(seen)[1]
    assert lines(text, "sockets")[1:] == [
        "  # tcp://[::]:2375 is open now, but no file configures it: with this policy it is drift. To allow",
        "  # it, declare it:",
        "  # - address: 'tcp://[::]:2375'", "  #   tls: none"]
    assert missing(seen, text) == []


def test_a_host_name_is_declared_by_its_current_address(stock_host: Host) -> None:
    stock_host.start("-H tcp://docker.example.org:2375")
    text = adopt(listening(stock_host.see(), "tcp://10.0.0.5:2375"))[1]
    assert [one.address for one in parse_policy(text.encode()).sockets] == ["tcp://10.0.0.5:2375"]
    assert "'docker.example.org' is not an IP address" in text


def test_no_docker(tmp_path: Path) -> None:
    with Rootfs(str(tmp_path)) as rootfs:
        _, text = adopt(observe_files(rootfs, None))
    assert "Unit docker.service not found." in text
    assert [one.address for one in parse_policy(text.encode()).sockets] == ["fd://"]


# -- properties ------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [*corpus.roots(), *shared.corpus()], ids=lambda root: "/".join(root.parts[-2:]))
def test_a_published_configuration_gives_a_complete_policy(root: Path) -> None:
    holds(root)


def test_any_configuration_gives_a_complete_policy() -> None:
    for number in range(GENERATED):
        with tempfile.TemporaryDirectory() as root:
            generate(SEED, number).write(Path(root))
            holds(Path(root))


def holds(root: Path) -> None:
    """The policy is valid, also by its schema; its comments contain the results of lint and diff; and if the host
    starts and the policy declares everything, nothing has to be changed."""
    with Rootfs(str(root)) as rootfs:
        seen = observe_files(rootfs, None)
        found, text = adopt(seen)
        assert missing(seen, text) == [], text
        assert schema_errors(text) == [], text
        policy = parse_policy(text.encode())
        layer = seen.configured.layer
        if layer.starts and found.declared and not found.refused and seen.configured.service.unit.name == \
                "docker.service" and not {"DG101", "DG102", "DG208"} & set(codes(seen, text)):
            assert not plan_for(seen, policy).changes, text


# -- the file --------------------------------------------------------------------------------------


def test_standard_output_contains_only_the_policy(stock_host: Host, call: Call) -> None:
    said = call("init", "--root", stock_host.root)
    assert (said.code, said.err) == (0, "")
    parse_policy(said.out.encode())
    assert not (stock_host.root / POLICY_FILE[1:]).exists()


def test_nothing_is_replaced_without_force(stock_host: Host, tmp_path: Path, call: Call) -> None:
    target = tmp_path / "new/config.yaml"
    os.umask(0o077)
    said = call("init", "--root", stock_host.root, "--output", target)
    assert (said.code, said.err) == (0, "")
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    target.write_text("# mine\n")
    target.chmod(0o666)
    said = call("init", "--root", stock_host.root, "--output", target)
    assert said.code == 2
    assert f"{target} exists" in said.err
    assert target.read_text() == "# mine\n"
    for number in ("", ".2"):
        saved = Path(f"{target}.dockerd-guard-saved{number}")
        said = call("init", "--root", stock_host.root, "--output", target, "--force")
        assert said.code == 0
        assert said.out.startswith(f"The previous file is kept as {saved}.\nWrote {target}: 1 declared")
        assert stat.S_IMODE(target.stat().st_mode) == 0o644
        assert saved.exists()
    assert Path(f"{target}.dockerd-guard-saved").read_text() == "# mine\n"
    assert sorted(path.name for path in target.parent.iterdir()) == [
        "config.yaml", "config.yaml.dockerd-guard-saved", "config.yaml.dockerd-guard-saved.2"]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/nowhere"), os.mkfifo])
def test_only_regular_files_are_replaced(stock_host: Host, tmp_path: Path, call: Call, make: object) -> None:
    target = tmp_path / "config.yaml"
    make(target)  # type: ignore[operator]
    before = target.lstat()
    for words in ([], ["--force"]):
        said = call("init", "--root", stock_host.root, "--output", target, *words)
        assert (said.code, f"{target} exists" in said.err) == (2, True)
        assert target.lstat() == before


def test_a_write_error_is_reported(stock_host: Host, tmp_path: Path, call: Call) -> None:
    (tmp_path / "file").write_text("")
    said = call("init", "--root", stock_host.root, "--output", tmp_path / "file/config.yaml")
    assert said.code == 2
    assert "Not a directory" in said.err and "Traceback" not in said.err


def test_a_root_that_is_not_there(tmp_path: Path, call: Call) -> None:
    said = call("init", "--root", tmp_path / "gone")
    assert (said.code, said.out, said.err) == (2, "", f"dockerd-guard: {tmp_path}/gone: No such file or directory\n")
