"""The rows of docs/access-paths.md: how each way to the Docker API is opened and closed, and what is reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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

RESTART = "systemctl daemon-reload; systemctl restart docker"

ON_LOOPBACK = {f"{UNITS}/docker.service.d/tcp.conf": (
    "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://127.0.0.1:2375 --tls=false\n")}
OFF_LOOPBACK = f"rm -f {UNITS}/docker.service.d/*.conf; {RESTART}"


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
    is_in_use: bool = False
    speaks_http: bool = True
    resync: str = "1s"
    debian: tuple[str, ...] = ()


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
    Row("second dockerd, child of the first", {f"{UNITS}/docker.service.d/two.conf": (
        f"[Service]\nExecStart=\nExecStart=/bin/sh -c '{SECOND} & exec /usr/sbin/dockerd -H fd://'\n")},
        f"{BRIDGE}systemctl daemon-reload; systemctl restart docker", 4243, "DG107",
        "another dockerd is running (pid *, docker.service) and listens on *4243*",
        # docker.service has KillMode=process: its restart does not end the other one.
        f"rm {UNITS}/docker.service.d/two.conf; systemctl daemon-reload; systemctl restart docker; "
        "pkill --full 424[3]"),
    Row("second dockerd, in its start pause", {f"{UNITS}/two.service": unit(
        f"/usr/sbin/{SECOND.replace(' --tls=false', '')}", "Type=exec\n")},
        f"{BRIDGE}systemctl start two; systemctl reload dockerd-guard", 4243, "DG107",
        "another dockerd is running (pid *, two.service) and listens on *4243", "systemctl stop two", resync="1h"),
    Row("second dockerd, hard link",
        {f"{UNITS}/engine.service": unit(f"/usr/sbin/{SECOND.replace('dockerd', 'engine', 1)}")},
        f"{BRIDGE}ln /usr/sbin/dockerd /usr/sbin/engine; systemctl start engine", 4243,
        "DG107", "another dockerd is running (pid *, engine.service) and listens on *4243", "systemctl stop engine"),
    Row("second dockerd, copy under another name",
        {f"{UNITS}/engine.service": unit(f"/usr/sbin/{SECOND.replace('dockerd', 'engine', 1)}")},
        f"{BRIDGE}cp /usr/sbin/dockerd /usr/sbin/engine; systemctl start engine", 4243, "DG107",
        "engine (pid *, engine.service) listens on *4243: it listens on */libnetwork/*.sock, as dockerd does; it leads "
        "to the Docker API*", "systemctl stop engine"),
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
    Row("script, in use", {RELAY: SCRIPT.replace("SOCKET", '"".join(("/run/dock", "er.sock"))', 1),
                           f"{UNITS}/relay.service": unit(f"/usr/bin/python3 {RELAY}")},
        "systemctl start relay", 5000, "DG107",
        "python3* (pid *, relay.service) listens on *5000: it is connected to the API socket*",
        "systemctl stop relay", is_in_use=True),
    Row("relay in ExecStartPost=", {f"{UNITS}/docker.service.d/post.conf": (
        "[Service]\nExecStartPost=/bin/sh -c 'socat TCP-LISTEN:5000,fork,reuseaddr "
        "UNIX-CONNECT:/run/docker.sock &'\n")}, "systemctl daemon-reload; systemctl restart docker", 5000, "DG107",
        "socat* (pid *, docker.service) listens on *5000: *", "pkill socat"),
    Row("program of another account, in use", {}, "useradd --groups=docker bob; systemd-run --quiet --unit=relay "
        "--uid=bob socat TCP6-LISTEN:5000,fork,reuseaddr UNIX-CONNECT:/run/docker.sock", 5000, "DG107",
        "socat* (pid *, relay.service, uid *) listens on *5000: it is connected to the API socket*",
        "systemctl stop relay", is_in_use=True),
    Row("socat to a loopback address of dockerd", {**ON_LOOPBACK, f"{UNITS}/relay.service": unit(
        "/usr/bin/socat TCP6-LISTEN:5000,fork,reuseaddr TCP:localhost:2375")},
        f"{RESTART}; systemctl start relay", 5000, "DG107",
        "socat* (pid *, relay.service) listens on *5000: its command line names localhost:2375*",
        f"systemctl stop relay; {OFF_LOOPBACK}"),
    Row("script to a loopback address of dockerd, in use", {
        **ON_LOOPBACK,
        RELAY: SCRIPT.replace("AF_UNIX", "AF_INET").replace("SOCKET", '("127.0.0.1", 2000 + 375)', 1),
        f"{UNITS}/relay.service": unit(f"/usr/bin/python3 {RELAY}")},
        f"{RESTART}; systemctl start relay", 5000, "DG107",
        "python3* (pid *, relay.service) listens on *5000: it is connected to the API socket*",
        f"systemctl stop relay; {OFF_LOOPBACK}", is_in_use=True),
    Row("program on port 2375", {}, "systemd-run --quiet --unit=web python3 -m http.server --bind :: 2375", 2375,
        "DG107", "python3* (pid *, web.service) listens on *2375, a port of the Docker API that is not declared",
        "systemctl stop web", is_contained=False, speaks_http=False),
    Row("nginx with the socket as upstream", {"/etc/nginx/conf.d/api.conf": (
        "server { listen [::]:5000 ipv6only=off; location / { proxy_pass http://unix:/run/docker.sock:; } }\n")},
        "sed -i s/www-data/root/ /etc/nginx/nginx.conf; systemctl restart nginx", 5000, "DG107",
        "nginx (pid *, nginx.service) listens on *5000: its file /etc/nginx/conf.d/api.conf names /run/docker.sock; *",
        "systemctl stop nginx", debian=("nginx-light",)),
    Row("containerd", {"/etc/containerd/config.toml": 'version = 2\n[grpc]\n  tcp_address = "0.0.0.0:9000"\n'},
        "systemctl restart containerd", 9000, "DG110",
        "containerd serves its API, equivalent to root without Docker, on tcp://0.0.0.0:9000 (tcp_address); it listens "
        "there now", "rm /etc/containerd/config.toml; systemctl restart containerd",
        speaks_http=False),
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
