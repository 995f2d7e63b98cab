"""The four layers on a real host, compared with systemd, /proc and other hosts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.support.correction import entries

DROP_IN = "/etc/systemd/system/docker.service.d/x.conf"
SOCKET_DROP_IN = "/etc/systemd/system/docker.socket.d/x.conf"
SOCK = "unix:///run/docker.sock"
ADDRESS6 = "fd77::2"
LAYERS = ("configured", "loaded", "running", "listening")


def seen(machine: Machine) -> dict[str, Any]:
    value = json.loads(machine.run("dockerd-guard sockets --format json").out)
    assert isinstance(value, dict)
    return value


def addresses(machine: Machine) -> dict[str, tuple[str, ...] | None]:
    """Return the addresses of each layer, with /var/run replaced by /run."""
    return {name: None if layer is None else tuple(sorted(
        binding["address"].replace("/var/run/", "/run/") for binding in layer["bindings"]))
            for name, layer in seen(machine)["layers"].items()}


def place(machine: Machine, layer: str, address: str) -> tuple[str, str, str, str]:
    """Return the source and scope of a binding, and the file and text of the line that defines it."""
    for binding in seen(machine)["layers"][layer]["bindings"]:
        if binding["address"] == address:
            text = machine.read(binding["file"]).splitlines()[binding["line"] - 1]
            return binding["via"], binding["scope"], binding["file"], text
    raise LookupError(address)


def codes(machine: Machine) -> set[str]:
    found = json.loads(machine.run("dockerd-guard lint --format json", check=False).out)["findings"]
    return {finding["code"] for finding in found}


def started_with(machine: Machine, *lines: str) -> None:
    machine.write(DROP_IN, "\n".join(("[Service]", "ExecStart=", *lines, "")))


def restart(machine: Machine, *units: str) -> None:
    machine.run(["systemctl", "stop", "docker.service", *units])
    # With Debian's KillMode=process, children of a shell stay.
    machine.run("pkill --exact dockerd", check=False)
    wait_for(lambda: not machine.run("pgrep --exact dockerd", check=False).out, "the end of every dockerd")
    machine.run("systemctl daemon-reload; systemctl reset-failed")
    machine.run(["systemctl", "start", *units, "docker.service"])
    wait_for(lambda: machine.socket_answers("/run/docker.sock"), "the API on its UNIX socket")


def test_change_passes_through_the_layers(machine: Machine) -> None:
    assert addresses(machine) == dict.fromkeys(LAYERS, (SOCK,))
    via, scope, file, text = place(machine, "listening", SOCK)
    assert (via, scope, text) == ("socket-unit", "unix", "ListenStream=/run/docker.sock")
    assert file.endswith("/docker.socket")

    both = ("tcp://127.0.0.1:2375", SOCK)
    started_with(machine, "ExecStart=/usr/sbin/dockerd -H fd:// -H tcp://127.0.0.1:2375 --tls=false")
    assert addresses(machine) == {**dict.fromkeys(LAYERS, (SOCK,)), "configured": both}
    assert "DG307" in codes(machine)
    machine.run("systemctl daemon-reload")
    assert addresses(machine) == {**dict.fromkeys(LAYERS, both), "running": (SOCK,), "listening": (SOCK,)}
    assert "DG308" in codes(machine)
    restart(machine)
    assert addresses(machine) == dict.fromkeys(LAYERS, both)
    assert place(machine, "listening", both[0])[:3] == ("flag", "loopback", DROP_IN)
    assert codes(machine).isdisjoint(("DG307", "DG308"))

    # While no dockerd runs, systemd owns the socket; the first connection starts dockerd.
    machine.run("systemctl stop docker.service")
    assert addresses(machine)["running"] is None
    assert seen(machine)["layers"]["listening"]["reason"] == "dockerd is not running"
    wait_for(lambda: machine.socket_answers("/run/docker.sock"), "the API by way of the socket")
    assert addresses(machine) == dict.fromkeys(LAYERS, both)


@pytest.mark.parametrize("only", ["both", "ipv6-only"])
def test_port_is_reported_for_the_right_address_families(machine: Machine, only: str) -> None:
    """systemd opens a port of docker.socket, dockerd opens one of -H; each serves IPv4 as configured."""
    machine.write(SOCKET_DROP_IN, f"[Socket]\nListenStream=2375\nBindIPv6Only={only}\n")
    started_with(machine, "ExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2376 --tls=false")
    restart(machine, "docker.socket")
    found = addresses(machine)
    assert found["listening"] == ("tcp://[::]:2375", "tcp://[::]:2376", SOCK)
    assert found["configured"] == found["loaded"] == ("tcp://0.0.0.0:2376", "tcp://[::]:2375", SOCK)
    assert place(machine, "listening", "tcp://[::]:2375") == (
        "socket-unit", "wildcard", SOCKET_DROP_IN, "ListenStream=2375")
    assert place(machine, "listening", "tcp://[::]:2376")[:3] == ("flag", "wildcard", DROP_IN)
    assert {"DG103", "DG104"} <= codes(machine) and "DG102" not in codes(machine)
    answers = {(port, address): machine.api_answers(port=port, address=address)
               for port in (2375, 2376) for address in (ADDRESS, ADDRESS6)}
    assert answers == {(2375, ADDRESS): only == "both", (2375, ADDRESS6): True, (2376, ADDRESS): True,
                       (2376, ADDRESS6): True}


SECOND = ("/usr/sbin/dockerd -H unix:///run/second.sock -H tcp://0.0.0.0:2399 --tls=false --exec-root=/run/second "
          "--data-root=/var/lib/second --pidfile=/run/second.pid --bridge=none --iptables=false "
          "--containerd=/run/containerd/containerd.sock --metrics-addr=127.0.0.1:9399 --experimental")


@pytest.mark.parametrize(("by", "unit"), [
    (f"(exec -a any setsid {SECOND} >/run/second.log 2>&1 &)", None),
    (f"systemd-run --quiet --unit=second {SECOND}", "second.service"),
])
def test_second_dockerd_is_reported_with_its_api_sockets(machine: Machine, by: str, unit: str | None) -> None:
    """Started by hand or by a unit of its own: reported with the sockets of its API only."""
    machine.run(["bash", "-c", by])
    wait_for(lambda: machine.socket_answers("/run/second.sock"), "the second dockerd")
    pid = int(machine.read("/run/second.pid"))
    for is_up in (True, False):
        if not is_up:
            machine.run("systemctl stop docker.service docker.socket")
        value = seen(machine)
        assert (value["layers"]["running"] is not None) is is_up
        other, = value["others"]
        assert other["pid"] == pid and (unit is None or other["unit"] == unit)
        assert sorted(binding["address"] for binding in other["bindings"]) == [
            "tcp://[::]:2399", "unix:///run/second.sock"]
        assert "DG107" in codes(machine)


@pytest.mark.parametrize("network", ["host", "own"])
def test_dockerd_in_a_container_is_reported_only_in_the_host_network(machine: Machine, network: str) -> None:
    """Reported only if it listens in the network namespace of the host."""
    own = "--net" if network == "own" else ""
    machine.run(f"systemd-run --quiet --unit=inner unshare {own} --fork --pid --mount-proc --kill-child sh -c "
                f"'ip link set lo up; exec {SECOND}'")
    wait_for(lambda: machine.socket_answers("/run/second.sock"), "the inner dockerd")
    found = [(binding["address"], other["unit"]) for other in seen(machine).get("others", ())
            for binding in other["bindings"]]
    assert found == ([("tcp://[::]:2399", "inner.service")] if network == "host" else [])
    assert machine.api_answers(port=2399) is (network == "host")


# As any user: names with line breaks in /proc/net/unix, one that imitates a line and gives dockerd another socket, and
# a process with dockerd's name.
ANYBODY = """
import os, re, socket, subprocess, time
rows = open("/proc/net/unix").read()
inode = re.search(r" 00010000 0001 01 +(\\d+) /run/docker.sock\\n", rows)[1]
kept = []
for name in ("a b c zz e f g h", f"0: 00000002 00000000 00010000 0001 01 {inode} /tmp/forged"):
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].bind(b"\\0x\\n" + name.encode())
    kept[-1].listen()
kept.append(socket.socket(socket.AF_UNIX))
kept[-1].bind("/tmp/forged")
kept[-1].listen()
kept.append(socket.socket(socket.AF_UNIX))
kept[-1].bind(b"\\0\\xff\\x1b\\r\\n\\xe2\\x80\\xa8")
kept[-1].listen()
kept.append(socket.socket())
kept[-1].bind(("0.0.0.0", 2380))
kept[-1].listen()
for _ in range(900):
    os.dup(kept[0].fileno())
# Processes of theirs, and setuid ones by that name, which wait for a password.
os.makedirs("/tmp/setuid", exist_ok=True)
os.symlink("/usr/bin/su", "/tmp/setuid/dockerd")
for _ in range(70):
    kept.append(subprocess.Popen(["/tmp/setuid/dockerd", "root"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL))
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)
open("/tmp/anybody", "w")
time.sleep(3600)
"""


def test_unprivileged_users_cannot_blind_or_mislead(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", '{"live-restore": true}\n')
    machine.run("systemctl restart docker")
    machine.write("/etc/dockerd-guard/config.yaml", "version: 1\nmode: enforce\nsockets: [fd://]\n")
    wait_for(lambda: "mode enforce" in machine.run("journalctl --unit=dockerd-guard --boot").out, "the policy")
    pid = machine.main_pid()
    machine.write("/srv/anybody.py", ANYBODY)
    machine.run("cp /usr/bin/python3 /srv/dockerd")
    machine.run("systemd-run --quiet --uid=nobody --unit=anybody /srv/dockerd /srv/anybody.py")
    wait_for(lambda: machine.exists("/tmp/anybody"), "misleading process")
    assert "/tmp/forged" in machine.read("/proc/net/unix")

    value = seen(machine)
    assert addresses(machine)["listening"] == (SOCK,)
    # Its real listener and its name are reported: it may be a rootless Docker.
    assert any(binding["address"] == "tcp://0.0.0.0:2380" for other in value["others"] for binding in other["bindings"])
    # A second dockerd of root is reported among so many.
    machine.run(f"systemd-run --quiet --unit=second {SECOND}")
    wait_for(lambda: machine.socket_answers("/run/second.sock"), "the second dockerd")
    assert any(other["unit"] == "second.service" for other in seen(machine)["others"])
    machine.run("systemctl stop second")
    machine.write(DROP_IN, "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375\n")
    machine.run("systemctl kill --signal=HUP dockerd-guard")
    # It names what listens under the name of dockerd as well.
    again = "docker.service listens as declared again", "other ways to the API: ", "tcp://0.0.0.0:2380"
    wait_for(lambda: any(all(part in entry["MESSAGE"] for part in again) for entry in entries(machine, "corrected")),
             "correction all the same")
    assert machine.main_pid() == pid
    # The status follows at the end of the pass.
    wait_for(lambda: "DG107" in machine.properties("dockerd-guard.service", "StatusText")["StatusText"], "status line")
    assert machine.properties("dockerd-guard.service", "NRestarts") == {"NRestarts": "0"}
    assert "internal error" not in machine.run("journalctl --unit=dockerd-guard --boot").out


def test_layers_agree_for_wrapped_dockerds(machine: Machine) -> None:
    """Files, systemd and the process agree on a dockerd with another argv[0], in a shell, or as its child."""
    lines = ["ExecStart=@/usr/sbin/dockerd any -H fd:// --label=a=b",
             "ExecStart=/bin/sh -c 'A=\"-H fd://\"; exec dockerd $$A --label=a=b'",
             "ExecStart=/bin/bash -c 'A=\"-H fd://\"; dockerd $$A --label=a=b'",
             "Type=exec\nExecStart=/bin/sh -c 'dockerd -H unix:// --label=a=b; true'"]
    if machine.release == "sid":
        lines += ["ExecStart=|dockerd -H fd:// --label=a=b", "ExecStart=|@dockerd -H fd:// --label=a=b"]
    for line in lines:
        started_with(machine, line)
        restart(machine, "docker.socket")  # the previous dockerd may have removed its path
        layers = seen(machine)["layers"]
        assert layers["configured"]["hosts"] == layers["loaded"]["hosts"] == layers["running"]["hosts"] != [], line
        assert layers["configured"]["argv"] == layers["loaded"]["argv"], line
        assert [layers[name]["starts"] for name in LAYERS] == [True] * 4, line
        assert addresses(machine) == dict.fromkeys(LAYERS, (SOCK,)), line
        assert codes(machine).isdisjoint(("DG107", "DG307")), line

    # The shell stays, and systemd passes the sockets to it and not to its child (LISTEN_PID, sd_listen_fds(3)).
    started_with(machine, "Type=exec", "Restart=no", "ExecStart=/bin/sh -c 'dockerd -H fd://; true'")
    assert seen(machine)["layers"]["configured"]["refused_by"] == "dockerd"
    machine.run("systemctl daemon-reload; systemctl reset-failed; systemctl restart docker.service")
    wait_for(lambda: not machine.is_active("docker.service"), "the end of it")
    wait_for(lambda: "no sockets found via socket activation" in machine.run(
        "journalctl --unit=docker.service --boot").out, "its last words")


@pytest.mark.parametrize("killed", [False, True])
def test_socket_file_removed_or_left_by_dockerd_is_reported_and_fixed(machine: Machine, killed: bool) -> None:
    """docker.socket then listens on a deleted file: a dockerd with fd:// is active, and clients cannot connect. One
    that is killed leaves its own file there, on which nobody listens."""
    machine.write("/etc/dockerd-guard/config.yaml", "version: 1\nsockets: [fd://]\ncorrect: {restart: always}\n")
    started_with(machine, "ExecStart=/usr/sbin/dockerd -H unix://")
    restart(machine, "docker.socket")
    assert addresses(machine)["listening"] == (SOCK,)
    assert "DG309" in codes(machine)
    machine.remove(DROP_IN)
    kill = "systemctl kill --signal=KILL docker; systemctl stop docker.service" if killed else "systemctl stop docker"
    machine.run(f"systemctl daemon-reload; {kill}; systemctl start docker")
    assert machine.is_active("docker.service")
    assert machine.is_active("docker.socket")
    assert machine.exists("/run/docker.sock") is killed
    assert not machine.socket_answers("/run/docker.sock")
    assert addresses(machine)["listening"] == ()
    assert {"DG102", "DG309"} <= codes(machine)
    machine.run("systemctl reset-failed docker; dockerd-guard fix")
    assert machine.socket_answers("/run/docker.sock")
    assert codes(machine).isdisjoint({"DG102", "DG309"})
