"""The table of docs/access-paths.md: each row is opened, reported, and contained where the table says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import pytest

from tests.machines.machine import ADDRESS, ADDRESS_IPV6, Machine, wait_for
from tests.support.containment import BUSYBOX_HTTPD, shop_answers, table
from tests.support.correction import ENFORCE, LIVE_RESTORE, OBSERVE, enforce, entries

RESYNC = "watch:\n  resync: 1s\n"

UNITS = "/etc/systemd/system"

RELAY = "/opt/relay"

SCRIPT = """#!/usr/bin/python3
import socket, threading
def copy(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass
server = socket.create_server(("", 5000))
while True:
    client, _ = server.accept()
    api = socket.socket(socket.AF_UNIX)
    api.connect(SOCKET)
    for pair in ((client, api), (api, client)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""

BRIDGE = "ip link add two0 type bridge; ip address add 172.31.0.1/24 dev two0; ip link set two0 up; "

SECOND = "dockerd -H tcp://0.0.0.0:4243 --tls=false --data-root=/srv/two --exec-root=/run/two --pidfile=/run/two.pid " \
         "--bridge=two0 --iptables=false --ip6tables=false"


class Row(NamedTuple):
    """One row: how the path is opened (files, a shell line), its port, what `lint` reports, whether it is blocked, and
    how it is closed."""

    name: str
    files: Mapping[str, str]
    line: str
    port: int
    code: str
    message: str
    close: str
    is_contained: bool = True


def unit(command: str, more: str = "") -> str:
    return f"[Service]\n{more}ExecStart={command}\n"


def container(options: str, api: str) -> str:
    """Run socat in a container, with the programs of the machine."""
    return (f"docker run --detach --name=relay --volume=/usr:/usr:ro --volume=/usr/lib:/lib:ro "
            f"--volume=/usr/lib64:/lib64:ro {options} busybox "
            f"/usr/bin/socat TCP6-LISTEN:7000,fork,reuseaddr UNIX-CONNECT:{api}")


ROWS = (
    Row("second dockerd, unit", {f"{UNITS}/two.service": unit(f"/usr/sbin/{SECOND}")}, BRIDGE + "systemctl start two",
        4243, "DG107", "another dockerd is running (pid *, two.service) and listens on *4243", "systemctl stop two"),
    Row("second dockerd, by hand", {}, f"{BRIDGE}systemd-run --scope --unit=byhand {SECOND} >/dev/null 2>&1 &", 4243,
        "DG107", "another dockerd is running (pid *, byhand.scope) and listens on *4243",
        "systemctl stop byhand.scope"),
    Row("second dockerd, hard link",
        {f"{UNITS}/engine.service": unit(f"/usr/sbin/{SECOND.replace('dockerd', 'engine', 1)}")},
        f"{BRIDGE}ln /usr/sbin/dockerd /usr/sbin/engine; systemctl start engine", 4243,
        "DG107", "another dockerd is running (pid *, engine.service) and listens on *4243", "systemctl stop engine"),
    Row("second dockerd, PID namespace",
        {f"{UNITS}/two.service": unit(f"/usr/bin/unshare --pid --fork --kill-child --mount-proc /usr/sbin/{SECOND}")},
        BRIDGE + "systemctl start two", 4243, "DG107",
        "another dockerd is running (pid *, two.service, in a PID namespace of its own) and listens on *4243",
        "systemctl stop two"),
    Row("socat, unit", {f"{UNITS}/relay.service": unit(
        "/usr/bin/socat TCP-LISTEN:5000,fork,reuseaddr UNIX-CONNECT:/var/run/docker.sock")},
        "systemctl start relay", 5000, "DG107",
        "socat* (pid *, relay.service) listens on *5000: its command line names /var/run/docker.sock*",
        "systemctl stop relay"),
    Row("socat, path in Environment=", {f"{UNITS}/relay.service": unit(
        "/usr/bin/socat TCP6-LISTEN:5000,fork,reuseaddr UNIX-CONNECT:${TARGET}",
        "Environment=TARGET=/run/docker.sock\n")}, "systemctl start relay", 5000, "DG107",
        "socat* (pid *, relay.service) listens on *5000: *", "systemctl stop relay"),
    Row("socat, by hand", {}, "systemd-run --scope --unit=byhand socat TCP-LISTEN:5000,fork,reuseaddr "
        "UNIX-CONNECT:/run/docker.sock >/dev/null 2>&1 &", 5000, "DG107",
        "socat* (pid *, byhand.scope) listens on *5000: *", "systemctl stop byhand.scope"),
    Row("systemd-socket-proxyd", {
        f"{UNITS}/relay.socket": "[Socket]\nListenStream=5000\n",
        f"{UNITS}/relay.service": unit("/usr/lib/systemd/systemd-socket-proxyd /run/docker.sock")},
        "systemctl start relay.socket", 5000, "DG107", "*relay*5000*", "systemctl stop relay.socket relay.service"),
    Row("script, unit", {RELAY: SCRIPT.replace("SOCKET", '"/run/docker.sock"', 1),
                         f"{UNITS}/relay.service": unit(f"/usr/bin/python3 {RELAY}")},
        "systemctl start relay", 5000, "DG107",
        f"python3* (pid *, relay.service) listens on *5000: its file {RELAY} names /run/docker.sock*",
        "systemctl stop relay"),
    Row("relay in ExecStartPost=", {f"{UNITS}/docker.service.d/post.conf": (
        "[Service]\nExecStartPost=/bin/sh -c 'socat TCP-LISTEN:5000,fork,reuseaddr "
        "UNIX-CONNECT:/run/docker.sock &'\n")}, "systemctl daemon-reload; systemctl restart docker", 5000, "DG107",
        "socat* (pid *, docker.service) listens on *5000: *", "pkill socat"),
    Row("containerd", {"/etc/containerd/config.toml": 'version = 2\n[grpc]\n  tcp_address = "0.0.0.0:9000"\n'},
        "systemctl restart containerd", 9000, "DG110",
        "containerd serves its API, equivalent to root without Docker, on tcp://0.0.0.0:9000 (tcp_address); it is open "
        "now", "rm /etc/containerd/config.toml; systemctl restart containerd"),
    Row("container, socket and published port", {}, container("--publish=7000:7000 --volume=/run/docker.sock:/api.sock",
        "/api.sock"), 7000, "DG108",
        "container relay (busybox) mounts /run/docker.sock and publishes *7000; the Docker API answers there",
        "docker rm --force relay"),
    Row("container, directory of the socket", {}, container("--publish=7000:7000 --volume=/var/run:/host",
        "/host/docker.sock"), 7000, "DG108", "container relay (busybox) mounts /* and publishes *7000; *",
        "docker rm --force relay"),
    Row("container, network of the host", {}, container("--network=host --volume=/:/host", "/host/run/docker.sock"),
        7000, "DG108", "container relay (busybox) mounts / and uses the host's network and listens on *7000; *",
        "docker rm --force relay"),
)


def is_open(machine: Machine, row: Row, address: str = ADDRESS) -> bool:
    """Whether a client outside can connect, and, except of containerd, which speaks gRPC, gets an answer."""
    if row.code != "DG110":
        return machine.api_answers(row.port, address=address)
    place = f"[{address}]" if ":" in address else address
    return machine.outside(["socat", "-u", "/dev/null", f"TCP:{place}:{row.port}"], check=False).status == 0


def reported(output: str, row: Row) -> bool:
    """Whether `lint` reports the path, by its rule and message."""
    return any(fnmatchcase(finding["message"], row.message) and finding["code"] == row.code
               for finding in json.loads(output)["findings"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_access_path(machine: Machine, row: Row) -> None:
    machine.write("/etc/dockerd-guard/config.yaml", OBSERVE + RESYNC)
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    machine.import_busybox()
    machine.run(["docker", "run", "--detach", "--init", "--name=shop", "--publish=8080:80", "busybox",
                 "/bin/sh", "-c", BUSYBOX_HTTPD, "shop"])
    wait_for(lambda: shop_answers(machine), "published port that answers")
    for path, text in row.files.items():
        machine.write(path, text)
    machine.run(row.line)
    wait_for(lambda: is_open(machine, row), "open access path", timeout=30)

    found = machine.run("dockerd-guard lint --format json", check=False).out
    assert reported(found, row), found
    wait_for(lambda: [entry for entry in entries(machine, "drift") if entry.get("DOCKERD_GUARD_RULE") == row.code
                      and str(row.port) in entry["MESSAGE"]], "drift entry")

    enforce(machine, ENFORCE + RESYNC)
    if row.is_contained:
        wait_for(lambda: not is_open(machine, row), "end of the exposure")
        assert not is_open(machine, row, ADDRESS_IPV6)
        entry = wait_for(lambda: entries(machine, "contained"), "entry")[-1]
        assert (entry["DOCKERD_GUARD_RULE"], entry["DOCKERD_GUARD_SOCKET"].rpartition(":")[2]) == \
            (row.code, str(row.port))
        assert row.code == "DG110" or (
            machine.run(f"curl --silent --max-time 5 http://127.0.0.1:{row.port}/_ping").out == "OK")
    assert shop_answers(machine)
    machine.run(row.close)
    wait_for(lambda: table(machine) == "", "release")
    assert shop_answers(machine)
    assert machine.run(f"curl --silent http://{ADDRESS}:8080/index.html").out == "open for business\n"
