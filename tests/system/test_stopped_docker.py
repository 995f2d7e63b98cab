"""A Docker that an administrator stops stays stopped, whatever the agent was about to ask."""

from __future__ import annotations

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.contention import starts
from tests.support.correction import ENFORCE, LIVE_RESTORE, enforce, entries, messages, rests

NEVER = f"{ENFORCE}correct: {{restart: never}}\n"
OTHER = ("/usr/sbin/engine -H tcp://0.0.0.0:4000 --tls=false --data-root=/srv/two --exec-root=/run/two "
         "--pidfile=/run/two.pid --bridge=two0 --iptables=false --ip6tables=false")
CONTAINER = ("docker run --detach --name=relay --volume=/usr:/usr:ro --volume=/usr/lib:/lib:ro "
             "--volume=/usr/lib64:/lib64:ro --publish=7000:7000 --volume=/run/docker.sock:/api.sock busybox "
             "/usr/bin/socat TCP6-LISTEN:7000,fork,reuseaddr UNIX-CONNECT:/api.sock")

RELAY = """\
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    os.close(os.open("/run/asked-{port}".format(port=sys.argv[1]), os.O_CREAT))
    if sys.argv[2] == "silent":
        # Until the client gives up.
        while client.recv(4096):
            pass
        os.close(os.open("/run/left-{port}".format(port=sys.argv[1]), os.O_CREAT))
        continue
    api = socket.socket(socket.AF_UNIX)
    api.connect("/run/docker.sock")
    api.sendall(client.recv(4096))
    client.sendall(api.recv(65536))
    client.close()
"""


def start_relay(machine: Machine, port: int, how: str) -> None:
    machine.run(f"systemd-run --quiet --unit=relay-{port} /usr/bin/python3 -u /srv/relay.py {port} {how}")
    wait_for(lambda: "ready" in machine.run(f"journalctl --unit=relay-{port} --output=cat").out, "listener")


def test_docker_that_is_stopped_while_the_agent_asks_around_is_not_started(machine: Machine) -> None:
    """The agent asks one program after the other: the first one does not answer, the second connects to docker.sock."""
    machine.write("/srv/relay.py", RELAY)
    machine.run("systemctl stop dockerd-guard")
    start_relay(machine, 5001, "silent")
    start_relay(machine, 5002, "docker")
    wait_for(lambda: machine.socket_answers("/run/docker.sock"), "the API on its UNIX socket")
    machine.run("systemctl start --no-block dockerd-guard")
    wait_for(lambda: machine.exists("/run/asked-5001"), "request to the first program")
    assert not machine.exists("/run/asked-5002")
    machine.run("systemctl stop docker.service")
    wait_for(lambda: machine.exists("/run/left-5001"), "end of the request")
    # A pass after the one that asked.
    machine.write("/etc/systemd/system/docker.service.d/open.conf",
                  "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n")
    wait_for(lambda: any("tcp://0.0.0.0:2375" in entry["MESSAGE"] for entry in entries(machine, "drift")), "drift")
    assert machine.run("systemctl is-active docker.service docker.socket", check=False).out.split() == [
        "inactive", "active"]
    assert not machine.exists("/run/asked-5002")


@pytest.mark.parametrize("line", [
    "systemctl stop docker.service", "systemctl stop docker.service docker.socket; systemctl mask docker.service",
], ids=["stopped", "masked"])
def test_a_dockerd_of_another_name_is_blocked_while_docker_does_not_run(machine: Machine, line: str) -> None:
    """It is asked, and no request starts docker.service."""
    enforce(machine, NEVER)
    machine.run("ip link add two0 type bridge; ip address add 172.31.0.1/24 dev two0; ip link set two0 up")
    machine.run(line)
    before = starts(machine)
    machine.run(f"cp /usr/sbin/dockerd /usr/sbin/engine; systemd-run --quiet --unit=engine {OTHER}")
    wait_for(lambda: machine.run("curl --silent http://127.0.0.1:4000/_ping", check=False).out == "OK", "other dockerd")
    wait_for(lambda: not machine.api_answers(4000), "end of the exposure")
    entry = wait_for(lambda: entries(machine, "contained"), "entry")[-1]
    assert (entry["DOCKERD_GUARD_RULE"], entry["DOCKERD_GUARD_SOCKET"].rpartition(":")[2]) == ("DG107", "4000")
    wait_for(lambda: rests(machine, 2), "agent at rest")
    assert not machine.api_answers(4000)
    assert machine.run("systemctl is-active docker.service", check=False).out == "inactive\n"
    assert starts(machine) == before


def block_container(machine: Machine) -> None:
    """Let the agent block the port of a container that outlives dockerd."""
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    machine.import_busybox()
    enforce(machine, NEVER)
    machine.run(CONTAINER)
    wait_for(lambda: entries(machine, "contained"), "blocked port")


def test_the_port_of_a_container_stays_blocked_while_docker_does_not_run(machine: Machine) -> None:
    """Whoever reaches it starts docker.service by docker.socket, and has its API."""
    block_container(machine)
    machine.run("systemctl stop docker.service")
    machine.run("systemctl restart dockerd-guard")
    wait_for(lambda: rests(machine, 3), "agent at rest")
    assert not machine.api_answers(7000)
    assert machine.run("systemctl is-active docker.service", check=False).out == "inactive\n"
    assert not entries(machine, "released")
    machine.run("systemctl start docker.service")
    wait_for(lambda: rests(machine, 3), "agent at rest")
    assert not machine.api_answers(7000)
    # Each process of the agent reports it once.
    assert [entry["DOCKERD_GUARD_RULE"] for entry in entries(machine, "drift")].count("DG108") == 2
    assert not any("DG108" in message for message in messages(machine, "Resolved"))
    machine.run("docker rm --force relay")
    wait_for(lambda: entries(machine, "released"), "end of the block")


def test_the_port_of_a_container_that_ended_without_docker_is_blocked_no_longer(machine: Machine) -> None:
    """Docker never returns. Another account binds the port meanwhile: iptables forwards it to the container anyway."""
    block_container(machine)
    machine.run("systemctl stop docker.service docker.socket; systemctl mask docker.service")
    wait_for(lambda: ":7000 " not in machine.run("ss -Hltn").out, "end of docker-proxy")
    machine.run("systemd-run --quiet --unit=other --uid=nobody "
                "/usr/bin/socat TCP6-LISTEN:7000,fork,reuseaddr /dev/null")
    wait_for(lambda: ":7000 " in machine.run("ss -Hltn").out, "program of another account")
    machine.run("systemctl restart dockerd-guard")
    wait_for(lambda: rests(machine, 3), "agent at rest")
    assert not entries(machine, "released")
    machine.run("systemctl stop other; pkill -KILL -x containerd-shim", check=False)
    machine.run("systemctl reload dockerd-guard")
    wait_for(lambda: entries(machine, "released"), "end of the block")
