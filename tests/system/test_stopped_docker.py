"""A Docker that an administrator stops stays stopped, whatever the agent was about to ask."""

from __future__ import annotations

from tests.machines.machine import Machine, wait_for
from tests.support.correction import entries

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
