"""`lint DIR` and `lint --root`: ways to open the Docker API that guides, examples and repositories have, and what is
close to them and opens nothing."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from dockerd_guard.observe import unread_hosts
from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time
from tests.support.lint_rows import assert_named, assert_not_named, write

pytest_plugins = ["tests.support.fixtures"]
SAFE_TREE = {"etc/docker/daemon.json": '{"log-level": "warn"}'}
COMMAND = "/usr/bin/dockerd -H tcp://10.0.0.5:2375"
SOCKET = "/var/run/docker.sock"
RELAY = (
    f'import socket\ns = socket.create_server(("", 4243))\nu = socket.socket(socket.AF_UNIX)\nu.connect("{SOCKET}")\n')
BALENA = "[Service]\nExecStart=\nExecStart=/usr/bin/balenad -H fd:// -H tcp://0.0.0.0:4243\n"
EXTENSION = ('{"properties": {"publisher": "Microsoft.Azure.Extensions",\n"type": "DockerExtension",\n'
             '"settings": {"docker": {%s}}%s}}\n')
BOSH = "instance_groups:\n- jobs:\n  - name: docker\n    release: docker\n    properties:\n      tcp_address: %s\n"


def base32(text: str) -> str:
    return base64.b32encode(text.encode()).decode()


OPEN: dict[str, tuple[str, str | bytes, int]] = {
    "Azure: a template": ("azuredeploy.json", EXTENSION % ('"port": "4243", "options": ["-D"]', ""), 2),
    "Azure: a command": (
        "a.sh", "\naz vm extension set --name DockerExtension --settings '{\"docker\": {\"port\": \"4243\"}}'\n", 2),
    "Azure: Terraform": ("a.tf", 'type = "DockerExtension"\nsettings = jsonencode({docker = {port = "2375"}})\n', 1),
    "Azure: a parameter": ("a.json", EXTENSION % ('"port": "[parameters(\'p\')]"', ""), 2),
    "BOSH: a job": ("m.yml", BOSH % "0.0.0.0", 6),
    "BOSH: a value of the deployment": ("m.yml", BOSH % "((docker_ip))", 6),
    "BOSH: properties of all jobs": ("m.yml", "properties:\n  docker:\n    tcp_address: 10.0.0.5\n", 3),
    "BOSH: a template of the release": (
        "docker.sh.erb", "\nexport DOCKER_TCP=\"--host tcp://<%= address %>:<%= port %>\"\n", 2),
    "boot2docker without TLS": ("boot2docker/profile", "\nDOCKER_TLS=no\n", 2),
    "docker-machine without TLS": ("a.sh", "\ndocker-machine create -d virtualbox --engine-env DOCKER_TLS=no x\n", 2),
    "Vagrant: a forwarded port": (
        "Vagrantfile", '# docker\nconfig.vm.network "forwarded_port", guest: 2375, host: 4243\n', 2),
    "a socket unit that a script writes": (
        "a.sh", "cat > docker-tcp.socket <<E\n[Socket]\nListenStream=4243\nService=docker.service\nE\n", 3),
    "a socket unit of another name": (
        "a.sh", "cat > api.socket <<E\n[Socket]\nListenStream=4243\nService=docker.service\nE\n", 3),
    "an old name of dockerd, no scheme": ("a.sh", "\ndocker -d -H=0.0.0.0:7778 -api-enable-cors\n", 2),
    "socat: a variable": ("a.sh", f"S={SOCKET}\nsocat TCP-LISTEN:4243,fork UNIX-CONNECT:$S\n", 2),
    "socat: the name of a variable": ("docker.sh", '\nsocat TCP-LISTEN:$P,fork UNIX-CONNECT:"$DOCKER_SOCK"\n', 2),
    "socat: the variable of clients": (
        "a.sh", '\nsocat TCP-LISTEN:4243,fork "UNIX-CONNECT:${DOCKER_HOST#unix://}"\n', 2),
    "websocat": ("a.sh", f"\nwebsocat -b tcp-l:0.0.0.0:4243 unix-c:{SOCKET}\n", 2),
    "socat: a default": ("a.sh", f"\nsocat TCP-LISTEN:4243,fork UNIX-CONNECT:${{1:-{SOCKET}}}\n", 2),
    "socat: a variable of a template": (
        "docker.sh.j2", "\nsocat TCP-LISTEN:4243,fork UNIX-CONNECT:{{ docker_socket }}\n", 2),
    "nc: a variable": ("a.sh", f'S={SOCKET}\nncat -k -l 4243 -c "ncat -U $S"\n', 2),
    "nc: a variable after a pipe": ("a.sh", f'S={SOCKET}\nnc -lk 4243 </tmp/f | nc -U "$S" >/tmp/f\n', 2),
    "Chef: words of Ruby": ("a.rb", f"\ndefault['docker']['host'] = %w(unix://{SOCKET} 0.0.0.0:443)\n", 2),
    "a relay of another name": ("a.sh", f"\n./relay {SOCKET} 0.0.0.0:4243\n", 2),
    "Lima: a forwarded port": ("docker.yaml", 'portForwards:\n- guestPort: 2375\n  hostIP: "0.0.0.0"\n', 2),
    "Kubernetes: a service": ("dind.yaml", "kind: Service\nspec:\n  ports:\n  - port: 80\n    targetPort: 2375\n", 5),
    "spiped": ("a.sh", f"\nspiped -d -s [0.0.0.0]:4243 -t {SOCKET} -k key\n", 2),
    "lighttpd": ("a.conf", f'\nproxy.server = ("" => (("host" => "{SOCKET}")))\n', 2),
    "tcpserver": ("a.sh", f"\nexec tcpserver 0 4243 nc -U {SOCKET}\n", 2),
    "s6": ("a.sh", f"\nexec s6-tcpserver 0.0.0.0 4243 \\\n  s6-ioconnect {SOCKET}\n", 3),
    "systemd-socket-activate": (
        "a.sh", f"\nsystemd-socket-activate -l 4243 /lib/systemd/systemd-socket-proxyd {SOCKET}\n", 2),
    "a workflow of GitHub": (
        ".github/workflows/a.yml", f"container:\n  image: x\n  options: --network host -v {SOCKET}:{SOCKET}\n", 3),
    "a workflow of GitHub: several lines": (
        ".github/workflows/a.yml", f"container:\n  options: >-\n    -v {SOCKET}:/s\n    -p 80:80\n", 2),
    "a program of Python": ("a.py", RELAY, 4),
    "a program in a script": ("a.sh", f"python3 - <<E\n{RELAY}E\n", 5),
    "encoded: base32": ("a.sh", f"\necho {base32(COMMAND)} | base32 -d | sh\n", 2),
    "encoded: a relay": ("a.sh", f"\necho {base64.b64encode(RELAY.encode()).decode()} | base64 -d | python3\n", 2),
    "UTF-16 without a mark": ("a.ps1", f"\n{COMMAND}\n".encode("utf-16-le"), 2),
    "UTF-16 without a mark, the other order": ("a.ps1", f"\n{COMMAND}\n".encode("utf-16-be"), 2),
}

HARMLESS: dict[str, tuple[str, str]] = {
    "socat on the loopback address": ("a.sh", f"socat TCP-LISTEN:2375,bind=127.0.0.1,fork UNIX-CLIENT:{SOCKET} &\n"),
    "socat on localhost": ("a.sh", f"socat TCP4-LISTEN:2375,reuseaddr,fork,bind=localhost UNIX-CONNECT:{SOCKET}\n"),
    "socat on the loopback address, a variable": (
        "a.sh", "socat TCP-LISTEN:4243,bind=127.0.0.1,fork UNIX-CONNECT:$DOCKER_SOCK\n"),
    "socat between UNIX sockets": ("a.sh", "socat UNIX-LISTEN:$BRIDGE,fork UNIX-CONNECT:$DOCKER_SOCKET\n"),
    "socat to another socket": ("docker.sh", "S=/run/mysql.sock\nsocat TCP-LISTEN:4243,fork UNIX-CONNECT:$S\n"),
    "socat with a request from a pipe": ("a.sh", f"echo GET / | socat unix-connect:{SOCKET} STDIO | sed 1d\n"),
    "socat with a request from a pipe, a variable": ("a.sh", "echo | sudo socat unix-connect:$DOCKER_SOCKET STDIO\n"),
    "a client that names an address after the socket": (
        "a.sh", f"curl -s --unix-socket {SOCKET} 0.0.0.0/v1.42/containers/json\n"),
    "nc that waits": ("a.sh", "until nc -z docker-proxy 2375; do sleep 1; done\n"),
    "nc with a request": ("a.sh", f'S={SOCKET}\necho GET / | nc -U "$S"\n'),
    "spiped from the socket": ("a.sh", f"spiped -e -s {SOCKET} -t [192.0.2.1]:4243 -k key\n"),
    "Azure: no port": ("a.json", EXTENSION % ("", "")),
    "Azure: an application": ("a.json", (EXTENSION % ("", "")).replace("docker", "compose")),
    "Azure: certificates": (
        "a.json", EXTENSION % ('"port": "4243"', ', "protectedSettings": {"certs": {"ca": "x", "cert": "y"}}')),
    "BOSH: the loopback address": ("m.yml", BOSH % "127.0.0.1"),
    "BOSH: not set": ("m.yml", BOSH % "~"),
    "BOSH: another release": ("m.yml", (BOSH % "0.0.0.0").replace(" docker", " nats") + "# docker\n"),
    "Vagrant: a port that is not forwarded": (
        "Vagrantfile", '# docker\nc.vm.network :forwarded_port, guest: 2375, host: 2375, disabled: true\n'),
    "Vagrant: the loopback address": (
        "Vagrantfile", '# docker\nc.vm.network "forwarded_port", guest: 2375, host: 2375, host_ip: "127.0.0.1"\n'),
    "socat of a container of development": (
        "a.sh", 'socat "UNIX-LISTEN:${DOCKER_PROXY_SOCK},fork,mode=660" "UNIX-CONNECT:${DOCKER_SOCK}" 2>/dev/null &\n'),
    "socat on the loopback address, several lines": (
        "a.sh", 'nohup socat \\\n  TCP-LISTEN:80,bind=127.0.0.1,fork \\\n  "UNIX-CONNECT:${DOCKER_HOST#unix://}" &\n'),
    "a name of a unit in a program": ("a.py", '"""ListenStream= of dockerd-guard-fleet.socket."""\n'),
    "a syslog listener": ("forwarder.yml", "# docker\ncollectors:\n- syslog:\n  tcp_address: 0.0.0.0:10515\n"),
    "a socket unit of another program": ("docker.sh", "cat > a.socket <<E\n[Socket]\nListenStream=4243\nE\n"),
    "a workflow of GitHub without a port": (
        ".github/workflows/a.yml", f"container:\n  options: --user root -v {SOCKET}:{SOCKET}\n"),
    "options of another program": (
        "docker.yml", f"options:\n  - -p 80:80\nx: y\noptions: - -v {SOCKET}:/s\n"),
    "encoded: base32, nothing": ("a.sh", f"echo {base32('docker: log-driver json-file, live-restore')} | base32 -d\n"),
    "TLS of boot2docker": ("boot2docker/profile", "DOCKER_TLS=auto\n"),
    "a client of Python": ("a.py", RELAY.partition("\n")[0] + RELAY[RELAY.index("\nu ="):]),
}

OPEN_TREES: dict[str, dict[str, str]] = {
    "a relay in /usr/local/bin": {"usr/local/bin/dockrelay": f"#!/usr/bin/python3\n{RELAY}"},
    "a relay with a suffix": {"usr/local/sbin/relay.py": RELAY},
    "a relay below /opt": {"opt/relay/relay.py": RELAY},
    "a relay that a unit starts": {
        "etc/systemd/system/a.service": "[Service]\nExecStart=/usr/bin/python3 -u /usr/share/a/b/c/relay.py\n",
        "usr/share/a/b/c/relay.py": RELAY},
    "balenaEngine: a drop-in": {"etc/systemd/system/balena.service.d/a.conf": BALENA},
    "balenaEngine: a unit": {"lib/systemd/system/balena.service": BALENA},
    "QNAP": {"share/CACHEDEV1_DATA/.qpkg/container-station/etc/docker.json":
             '{"hosts": ["tcp://0.0.0.0:4243", "unix:///var/run/docker.sock"]}'},
    "lighttpd": {"etc/lighttpd/lighttpd.conf": str(OPEN["lighttpd"][1])},
    "spiped": {
        "etc/systemd/system/a.service": f"[Service]\nExecStart=/usr/bin/spiped -F -s [0.0.0.0]:4243 -t {SOCKET}\n"},
    "socat with a variable of an environment file": {
        "etc/systemd/system/a.service": "[Service]\nEnvironmentFile=/etc/default/a\n"
                                        "ExecStart=/usr/bin/socat TCP-LISTEN:4243,fork UNIX-CONNECT:${S}\n",
        "etc/default/a": f"S={SOCKET}\n"},
}

HARMLESS_TREES: dict[str, dict[str, str]] = {
    "a client of Python": {"usr/local/bin/a.py": HARMLESS["a client of Python"][1]},
    "a client that a unit starts": {
        "etc/systemd/system/a.service": "[Service]\nExecStart=/usr/bin/python3 /usr/share/a/c.py\n",
        "usr/share/a/c.py": HARMLESS["a client of Python"][1]},
    "balenaEngine": {"lib/systemd/system/balena.service": "[Service]\nExecStart=/usr/bin/balenad -H fd://\n"},
    "QNAP": {"share/CACHEDEV1_DATA/.qpkg/container-station/etc/docker.json": '{"registry-mirrors": ["https://x"]}'},
    "another package of QNAP": {"share/CACHEDEV1_DATA/.qpkg/x/docker.json": '{"hosts": ["tcp://0.0.0.0:4243"]}'},
    "socat on the loopback address": {"usr/local/bin/a": f"#!/bin/sh\n{HARMLESS['socat on the loopback address'][1]}"},
    "socat with a variable of another program": {
        "etc/systemd/system/a.service": "[Service]\nEnvironment=S=/run/mysql.sock\n"
                                        "ExecStart=/usr/bin/socat TCP-LISTEN:4243,fork UNIX-CONNECT:${S}\n"},
}



@pytest.mark.parametrize("name", OPEN)
def test_what_is_open_is_named(name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_named(tmp_path, call, monkeypatch, *OPEN[name])


@pytest.mark.parametrize("name", HARMLESS)
def test_what_opens_nothing_is_not_named(name: str, tmp_path: Path, call: Call) -> None:
    assert_not_named(tmp_path, call, *HARMLESS[name])


@pytest.mark.parametrize("name", OPEN_TREES)
def test_an_open_tree_is_never_green(name: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, {**SAFE_TREE, **OPEN_TREES[name]})
    said = call("lint", "--root", tmp_path)
    assert said.code in (1, 2) and any(path in said.out + said.err for path in OPEN_TREES[name]), said.out + said.err


@pytest.mark.parametrize("name", HARMLESS_TREES)
def test_a_harmless_tree_is_green(name: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, {**SAFE_TREE, **HARMLESS_TREES[name]})
    said = call("lint", "--root", tmp_path)
    assert said.code == 0, said.out + said.err


@pytest.mark.parametrize("text", [
    "ListenStream=4 ", "UNIX-CONNECT:$DOCKER_SOCK ", "TCP-L:a,bind=UNIX:$A ", "| socat STDIO UNIX:$A ", "spiped -t ",
    "tcp_address: a docker: ", '"docker": { "a": 1, ', "DOCKER_TCP=-H tcp:", "options: >-\n -", "ABCDEFG2", "a\0"])
def test_long_texts_end_soon(text: str) -> None:
    def work() -> None:
        data = f"docker DockerExtension {SOCKET} {text * 300_000}"[:1 << 20].encode()
        unread_hosts.first_way("docker/a.yml", unread_hosts.decoded(data))

    check_cpu_time(work, 2)
