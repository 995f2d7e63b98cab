"""Relays to the API socket in text that is not evaluated, and what names the socket otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockerd_guard.observe.socket_relays import first_relay
from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time

pytest_plugins = ["tests.support.fixtures"]

SOCKET = "/var/run/docker.sock"

RELAYS = """
proxy_pass http://unix:SOCKET:/;
upstream a { server unix:SOCKET; }
 server a unix@SOCKET
 server a SOCKET check
reverse_proxy unix/SOCKET
  to unix/SOCKET
ProxyPass "/" "unix:SOCKET|http://x/"
connect = SOCKET
backend default { .path = "SOCKET"; }
pipe: { path: SOCKET }
{"pipe": {"path": "SOCKET"}}
plugin_unix_path = SOCKET
unixPath = "SOCKET"
connect: unix:SOCKET
service: unix:SOCKET
servers: [{address: "unix:SOCKET"}]
ghostunnel server --listen 0.0.0.0:4243 --target unix:SOCKET
websocat -b ws-l:0.0.0.0:4243 unix:SOCKET
tailscale serve --bg unix:SOCKET
server_args = STDIO UNIX-CONNECT:SOCKET
socat TCP4-LISTEN:80,fork UNIX-CONNECT:SOCKET
socat openssl-listen:2376,cert=x unix:SOCKET
socat UNIX-CONNECT:SOCKET TCP-LISTEN:80
socat TCP:192.0.2.1:4243 UNIX:SOCKET
socat TCP-LISTEN:4243,bind=$HOST_IP,fork UNIX-CONNECT:SOCKET
socat TCP-LISTEN:1,bind=127.0.0.1 TCP:x:1 & socat TCP-LISTEN:4243,fork UNIX-CONNECT:SOCKET
ExecStart=-/usr/bin/socat STDIO UNIX-CONNECT:SOCKET\\nStandardInput=socket
nc -lk -p 4243 -e nc -U SOCKET &
ncat --listen 4243 --sh-exec "ncat -U SOCKET"
nc -l 4243 </tmp/f | nc -U SOCKET >/tmp/f
server_args = -U SOCKET
ExecStart=-/usr/bin/nc -U SOCKET\\nStandardInput=socket
ssh -g -N -L 0.0.0.0:4243:SOCKET host
ssh -gNL 4243:SOCKET host
ssh -o GatewayPorts=yes -L 4243:SOCKET host
ssh -N -R 2375:SOCKET host
ssh -N -R localhost:2375:SOCKET host
ssh -N -L :2375:SOCKET host
ssh -N -L *:2375:SOCKET host
ssh -N -L [::]:2375:SOCKET host
ssh -N -L "$IP:$PORT:SOCKET" host
LocalForward 0.0.0.0:2375 SOCKET
RemoteForward 2375 SOCKET
""".strip().split("\n")

OTHERS = """
docker -H unix://SOCKET ps
docker -H unix:SOCKET ps
endpoint = "unix://SOCKET"
base_url = "unix:/SOCKET"
export DOCKER_HOST=unix:SOCKET
envVars: [[key: 'DOCKER_HOST', value: 'unix:SOCKET']]
- name: DOCKER_HOST\\n  value: unix:SOCKET
docker run -p 80:80 -v SOCKET:SOCKET x
docker run -v "$S:SOCKET" x
docker run -v "${S:-SOCKET}:SOCKET" x
docker run -p 80:80 SOCKET
curl --unix-socket SOCKET http://x
ls SOCKET; chmod 660 SOCKET
echo | nc -U SOCKET
socat - UNIX-CONNECT:SOCKET
socat TCP-LISTEN:2375,bind=127.0.0.1,reuseaddr,fork UNIX-CLIENT:SOCKET
socat tcp-listen:2375,fork,bind=localhost unix:SOCKET
socat TCP6-LISTEN:2375,bind=[::1] UNIX:SOCKET
echo GET | socat STDIO UNIX-CONNECT:SOCKET
socat UNIX-LISTEN:SOCKET,fork UNIX-CONNECT:/run/other/docker.sock
ssh -nNT -L localhost:2374:SOCKET host
ssh -nNT -L 127.0.0.1:2374:SOCKET host
ssh -nNT -L 2374:SOCKET host
ssh -L /tmp/docker.sock:SOCKET host
ssh -L $HOME/docker.sock:SOCKET host
LocalForward 2375 SOCKET
LocalForward localhost:2375 SOCKET
path: SOCKET
self.path = "SOCKET"
listen unix:SOCKET;
bind unix/SOCKET
""".strip().split("\n")


def with_socket(line: str) -> str:
    return f"x\n{line}\n".replace("SOCKET", SOCKET).replace("\\n", "\n")


@pytest.mark.parametrize("line", RELAYS)
def test_a_relay_is_found(line: str) -> None:
    assert first_relay(with_socket(line)) is not None


@pytest.mark.parametrize("line", OTHERS)
def test_what_names_the_socket_otherwise_is_no_relay(line: str) -> None:
    assert first_relay(with_socket(line)) is None


def test_a_relay_is_named(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "daemon.json").write_text("{}")
    (tmp_path / "frpc.ini").write_text(with_socket("plugin_unix_path = SOCKET"))
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".")
    assert said.code == 2 and "frpc.ini:2: forwards to the API socket, in a form that is not evaluated" in said.err


@pytest.mark.parametrize("text", [
    "unix:/docker.sock ", "unix:docker.sock ", "a:1:/docker.sock ", "-R docker.sock ", "UNIX:/docker.sock ", "nc -l ",
    "server docker.sock ", "ssh docker.sock -g", "pipe: {docker.sock "])
def test_long_texts_end_soon(text: str) -> None:
    def work() -> None:
        first_relay((text * 100_000)[:1 << 20])

    check_cpu_time(work, 1)
