"""`lint DIR`: what configures dockerd in a form that is not read is named, and is never "nothing wrong"."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from pathlib import Path

import pytest

from dockerd_guard.commands import _arguments
from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time

pytest_plugins = ["tests.support.fixtures"]

HOSTS = '{"hosts": ["tcp://0.0.0.0:2375"]}'
GZIP = base64.b64encode(gzip.compress(HOSTS.encode(), mtime=0)).decode()
COMMAND = "/usr/bin/dockerd -H tcp://10.0.0.5:2375"
WRITE = "#cloud-config\nwrite_files:\n- path: /etc/docker/daemon.json\n  "
IGNITION = '{"ignition": {"version": "3.4.0"%s}, "storage": {"files": [{"path": "/etc/docker/daemon.json", %s}]}}'
BUTANE = "variant: fcos\nstorage:\n  files:\n  - path: /etc/docker/daemon.json\n    contents:\n      %s\n"
TASK = "- name: docker\n  ansible.builtin."
SAFE = {"safe/files/daemon.json": '{"log-level": "warn"}'}


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


NOT_READ: dict[str, tuple[str, str, int]] = {
    "Ansible: variables": ("group_vars/all.yml", "docker_options:\n  hosts:\n  - unix:///run/docker.sock\n"
                           "  - tcp://10.0.0.5:2375\n", 4),
    "Ansible: lineinfile": ("tasks/a.yml", f"{TASK}lineinfile:\n    path: /lib/systemd/system/docker.service\n"
                            f"    line: ExecStart={COMMAND}\n", 4),
    "Ansible: replace": ("tasks/a.yml", f"{TASK}replace:\n    path: /lib/systemd/system/docker.service\n"
                         "    regexp: fd://\n    replace: tcp://0.0.0.0:2375\n", 5),
    "Ansible: content that is a mapping": ("tasks/a.yml", f"{TASK}copy:\n    dest: /etc/docker/daemon.json\n"
                                           "    content: {log-level: warn}\n", 3),
    "Packer": ("docker.pkr.hcl", 'inline = ["echo \'{\\"hosts\\":[\\"tcp://0.0.0.0:2375\\"]}\' > /etc/docker/d"]\n', 1),
    "NixOS": ("a.nix", 'virtualisation.docker.listenOptions = [ "0.0.0.0:2375" ];\n', 1),
    "Dockerfile": ("Dockerfile", 'FROM docker:dind\nCMD ["dockerd", "-H", "tcp://10.0.0.5:2375"]\n', 2),
    "Dockerfile: a file of another name": ("conf/d.json", HOSTS, 1),
    "shell": ("setup.sh", f"#!/bin/sh\n{COMMAND} &\n", 2),
    "shell: a command of two lines": ("setup.sh", "#!/bin/sh\ndockerd --debug \\\n  -H tcp://10.0.0.5:2375\n", 3),
    "shell: what starts a comment elsewhere": ("a.sh", f"true \\\n; {COMMAND}\n", 2),
    "shell: two slashes": ("a.sh", f"#!/bin/sh\n/{COMMAND}\n", 2),
    **{f"shell: {name}": (name, f"{COMMAND}\n", 1)
       for name in ("newsletter-docker.sh", "history.sh", "license-x.bash")},
    "Ansible: variables with the keys of a policy": (
        "vars/docker.yml", 'version: 1\nsockets: []\ndocker_options: "-H tcp://0.0.0.0:2375"\n', 3),
    "shell: sed": ("setup.sh", "sed -i 's,fd://,& -H tcp://10.0.0.5,' /lib/systemd/system/docker.service\n", 1),
    "shell: a drop-in of docker.socket": (
        "lima.yaml", "script: |\n  cat > /etc/systemd/system/docker.socket.d/a.conf <<E\n"
        "  [Socket]\n  ListenStream=4243\n  E\n", 4),
    "Compose: docker-in-docker": (
        "compose.yaml", "services:\n  d:\n    image: docker:dind\n    ports: ['2375:2375']\n", 4),
    "Kubernetes: docker-in-docker": (
        "ds.yaml", "image: docker:dind\ncommand:\n- dockerd\n- --host=tcp://10.0.0.5:2375\n",
        4),
    "preseed": ("preseed.cfg", "d-i preseed/late_command string echo 'DOCKER_OPTS=\"-H tcp://10.0.0.5\"' > /x\n", 1),
    "Puppet": ("docker.pp", "class { 'docker': tcp_bind => ['tcp://10.0.0.5:2375'] }\n", 1),
    "Chef": ("docker.rb", "docker_service 'x' do\n  host ['tcp://10.0.0.5:2375']\nend\n", 2),
    "shell: an old name of dockerd": ("a.sh", "docker -D daemon -H tcp://0.0.0.0:2375\n", 1),
    "shell: another old name": ("a.sh", "docker -D -d -H tcp://0.0.0.0:2375\n", 1),
    "no scheme: sed": ("setup.sh", "sed -i 's|fd://|fd:// -H=0.0.0.0|' /lib/systemd/system/docker.service\n", 1),
    "no scheme: an address": (
        "Dockerfile", "FROM x\nRUN sed -i '/^ExecStart/s/$/ -H 10.0.0.5:4243/' docker.service\n", 2),
    "no scheme: a port": ("setup.sh", "sed -i 's/-H fd/--host=:4243 -H fd/' docker.service\n", 1),
    "no scheme: lineinfile": ("tasks/a.yml", f"{TASK}lineinfile:\n    path: /lib/systemd/system/docker.service\n"
                              "    line: ExecStart=/usr/bin/dockerd -H 0.0.0.0 -H fd://\n", 4),
    "no scheme: NixOS": ("a.nix", '{\n virtualisation.docker.extraOptions = "-H 0.0.0.0:4243"; }\n', 2),
    "no scheme: variables": ("hosts.ini", '[docker]\na docker_opts="-H 0.0.0.0:4243"\n', 2),
    "no scheme: a variable of a shell": ("docker.sh", '\ndockerd -H "${IP}:2375" -H fd://\n', 2),
    "no scheme: a list": ("a.yml", "docker_daemon_options:\n  hosts: ['unix:///run/docker.sock', '0.0.0.0:4243']\n", 2),
    "no scheme: a list of several lines": (
        "a.yml", "docker:\n  hosts:\n  - fd://\n  - unix:///run/docker.sock\n  - '[::]:4243'\n", 5),
    "no scheme: printf": (
        "a.sh", "\nprintf '{\"hosts\":[\"fd://\",\"0.0.0.0:4243\"]}' > /etc/docker/daemon.json\n", 2),
    "no scheme: Puppet": ("a.pp", "class { 'docker':\n  tcp_bind => ['0.0.0.0:4243'] }\n", 2),
    "no scheme: Minikube": ("a.sh", "\nminikube start --docker-opt host=0.0.0.0:4243\n", 2),
    "no scheme: docker-machine": ("a.sh", "\ndocker-machine create --engine-opt=\"host=0.0.0.0:4243\" x\n", 2),
    "another port: docker-machine": ("a.sh", "\ndocker-machine create --engine-opt host=tcp://10.0.0.5:4243 x\n", 2),
    "another port: RancherOS": (
        "a.yml", "rancher:\n  docker:\n    extra_args:\n    - -H\n    - tcp://10.0.0.1:4243\n", 5),
    "another port: Chef": ("a.rb", "docker_service 'a' do\n  host 'tcp://10.0.0.5:2375'\n  action :start\nend\n", 2),
    "another port: an expression of Chef": (
        "a.rb", "docker_service 'a' do\n  action :start\n  host \"tcp://#{node['ip']}:2375\"\nend\n", 3),
    "another port: a unit": ("a.txt", "docker\nExecStart=/opt/engine -H tcp://10.0.0.5:4243\n", 2),
    "another port: Dockerfile": ("Dockerfile", "FROM docker\nCMD dockerd-entrypoint.sh -H tcp://0.0.0.0:4243\n", 2),
    "another port: sed": ("setup.sh", "sed -i 's,fd://,tcp://0.0.0.0:4243,' /lib/systemd/system/docker.service\n", 1),
    "another port: variables": ("group_vars/docker.yml", "docker_hosts:\n  - tcp://0.0.0.0:4243\n", 2),
    "another port: Vagrant": ("Vagrantfile", "config.vm.provision :docker, opts: %w[-H tcp://0.0.0.0:4243]\n"
                              "# restarts docker\nshell 'systemctl restart docker.service'\n", 1),
    "another port: an option": ("docker/start.sh", 'exec "$@" --host=tcp://0.0.0.0:4243\n', 1),
    "no port": ("setup.sh", "dockerd -H tcp://0.0.0.0\n", 1),
    "a port of the API alone": ("docker/start.sh", "exec engine --listen tcp://0.0.0.0:2376\n", 1),
    "an environment file that only an init script reads": (
        "overlay/etc/default/dockerd", "# Buildroot\nDOCKERD_ARGS='-H tcp://0.0.0.0:2375'\n", 2),
    "no scheme: a variable that a file is made of": (
        "a.sh", "\nHOST_OPT='-H 0.0.0.0:2375'\necho DOCKER_OPTS=$HOST_OPT > /etc/default/docker\n", 2),
    "no scheme: Windows": (
        "a.cmd", 'sc config docker binPath= "\\"C:\\docker\\dockerd.exe\\" --run-service -H 0.0.0.0:4243"\n', 1),
    "PowerShell, UTF-16": ("setup.ps1", f"Set-Content C:\\ProgramData\\docker\\config\\daemon.json '{HOSTS}'\n", 1),
    "an example": ("docker/daemon.json.example", HOSTS, 1),
    "cloud-init: commands": ("user-data", f"{WRITE}content: '{{}}'\nruncmd:\n- {COMMAND}\n", 6),
    "cloud-init: commands after a folded text": (
        "user-data", f"{WRITE}content: >\n    {{}}\nruncmd: [{COMMAND}]\n", 6),
    "cloud-init: a script in it": (
        "user-data", f"{WRITE}content: '{{}}'\n- path: /opt/x\n  content: |\n    {COMMAND}\n", 7),
    "cloud-init: not base64": ("user-data", f"{WRITE}encoding: b64\n  content: ${{base64encode(file)}}\n", 5),
    "cloud-init: not gzip": ("user-data", f"{WRITE}encoding: gz+b64\n  content: {packed(HOSTS)}\n", 5),
    "cloud-init: an address to load": ("user-data", f"{WRITE}source: {{uri: 'https://192.0.2.1/x'}}\n", 3),
    "cloud-init: merged keys that are not there": ("user-data", f"{WRITE}<<: x\n", 3),
    "cloud-init: an alias of a mapping": ("user-data", f"#cloud-config\nx: &a {{}}\n{WRITE[14:]}content: *a\n", 4),
    "Ignition: an address to load": ("a.ign", IGNITION % ("", '"contents": {"source": "https://192.0.2.1/x"}'), 1),
    "Ignition: not gzip": ("a.ign", IGNITION % ("", '"contents": {"compression": "gzip", "source": "data:,x"}'), 1),
    "Ignition: merged": ("a.ign", IGNITION % (', "config": {"merge": [{"source": "https://192.0.2.1/x"}]}',
                                              '"contents": {"source": "data:,%7B%7D"}'), 1),
    "Butane: a local file": ("a.bu", BUTANE % "local: d.txt", 6),
    "Docker Desktop": ("settings-store.json", '{\n"ExposeDockerAPIOnTCP2375": true}\n', 2),
    "docker run: the socket and a port": (
        "up.sh", "\ndocker run -d -p 9000:9000 \\\n  -v /var/run/docker.sock:/var/run/docker.sock x\n", 2),
    "podman run: the network of the host": (
        "up.sh", "podman run --net=host -v /run/podman/podman.sock:/x y\n", 1),
    "a unit with docker run": (
        "a.service", "[Service]\nExecStart=docker run -P --volume /run/docker.sock:/x y\n", 2),
    "cloud-init: a list": (
        "user-data", "#cloud-config\nruncmd:\n- [docker, run, -p, '80:80', -v, '/:/host', i]\n", 3),
    **{f"a unit with a program that may start dockerd: {command}": (
        "docker-engine.service", f"[Service]\nExecStart={command}\n", 2)
       for command in ("/opt/bin/start-docker -H tcp://0.0.0.0:2375", "/opt/run.docker --tls -H tcp://10.0.0.5:2376",
                       "/usr/local/bin/my-docker -D --host 10.0.0.5:4243")},
    "a unit with attached options": (
        "a.service", "[Service]\nExecStart=docker run -p80:80 -v/run/docker.sock:/x y\n", 2),
    "Ansible: a container": ("t.yml", f"{TASK[:15]}  community.docker.docker_container:\n    published_ports: [80:80]\n"
                             "    volumes:\n    - /var/run/docker.sock:/x\n", 5),
    "Kubernetes: the socket": (
        "ds.yaml", "ports: [{hostPort: 80}]\nvolumes:\n- hostPath:\n    path: /var/run/docker.sock\n", 4),
    "Kubernetes: docker-in-docker and the host's network": (
        "ds.yaml", "hostNetwork: true\ncontainers:\n- image: docker:27-dind\n", 3),
    "docker-in-docker: a port of the host that is chosen": (
        "compose.yaml", "services:\n  d:\n    image: docker:dind\n    ports: [2375]\n", 4),
    "docker-in-docker: another port of the host": (
        "compose.yaml", "services:\n  d:\n    image: docker:dind\n    ports: ['80:2375']\n", 4),
    "tmpfiles.d": ("tmpfiles.d/a.conf", "d /etc/docker\nL /etc/docker/daemon.json - - - - /usr/share/d.json\n", 2),
    "Podman's socket": ("podman.socket.d/a.conf", "[Socket]\nListenStream=4243\n", 2),
    "encoded: a script in a script": ("setup.sh", f"# x\necho {packed(COMMAND)} | base64 -d | sh\n", 2),
    "encoded: a script in cloud-init": (
        "user-data", f"#cloud-config\nwrite_files:\n- path: /x\n  encoding: b64\n  content: {packed(COMMAND)}\n", 5),
    "encoded: lines of base64, and another key": (
        "a.yml", f"#cloud-config\nwrite_files:\n- path: /opt/x\n  content: !!binary |\n    {packed('x ab' * 9)}\n"
                 f"    {packed(COMMAND)}\nruncmd: [/opt/x]\n", 5),
    "encoded: gzip": (
        "a.tf", f'user_data = "{base64.b64encode(gzip.compress(COMMAND.encode())).decode()}"\n', 1),
    "encoded: a short command": ("a.sh", f"\necho {packed('dockerd -H :80')} | base64 -d | sh\n", 2),
    "encoded: twice": ("a.tf", f'\nuser_data = "{packed(f"content: {packed(COMMAND)}")}"\n', 2),
    **{f"encoded: {name}": ("a.sh", f"\necho {text} | sh\n", 2) for name, text in (
        ("xz", base64.b64encode(lzma.compress(COMMAND.encode())).decode()),
        ("bzip2", base64.b64encode(bz2.compress(COMMAND.encode())).decode()),
        ("zlib", base64.b64encode(zlib.compress(COMMAND.encode())).decode()),
        ("xxd", COMMAND.encode().hex()), ("lines of xxd", COMMAND.encode().hex("\n", 8)),
        ("hexdump", COMMAND.encode().hex(" ")), ("numbers", ", ".join(f"0x{each:02X}" for each in COMMAND.encode())),
        ("printf, hexadecimal", "".join(f"\\x{each:02x}" for each in COMMAND.encode())),
        ("printf, octal", "".join(f"\\{each:03o}" for each in COMMAND.encode())),
        ("a word after it", f"{COMMAND.encode().hex()} facebook"))},
    "encoded: more memory than is given to xz": (
        "a.sh", f"\necho {base64.b64encode(lzma.compress(COMMAND.encode(), preset=9)).decode()} | xz -d | sh\n", 2),
    "encoded: no word of Docker in it": (
        "a.yml", f"\npath: /etc/docker/daemon.json\nx: {packed(HOSTS.replace('0.0.0.0:2375', '10.0.0.5:4243'))}\n", 3),
    "sed: escaped slashes": (
        "a.sh", "\nsed -i 's/fd:\\/\\//tcp:\\/\\/10.0.0.5:4243/' /lib/systemd/system/docker.service\n", 2),
    "sed: escaped slashes and a variable": ("a.sh", "\nsed -i 's/fd:\\/\\//tcp:\\/\\/'$IP/ docker.service\n", 2),
    "a search, then an edit": (
        "a.sh", "\ngrep -q tcp: daemon.json || yq -i '.hosts[1] = \"tcp://10.0.0.5:4243\"' daemon.json\n", 2),
    "jq": ("a.sh", "\njq --arg h tcp://10.0.0.5:4243 '.hosts += [$h]' /etc/docker/daemon.json > x\n", 2),
    "yq": ("a.sh", "\nyq -i '.hosts[1] = \"tcp://10.0.0.5:4243\"' /etc/docker/daemon.json\n", 2),
    "augtool": (
        "a.sh", "\naugtool set /files/etc/docker/daemon.json/dict/entry[1]/array/string tcp://10.0.0.5:4243\n", 2),
    "Python: a list that gets longer": (
        "a.py", "p = '/etc/docker/daemon.json'\nc.setdefault('hosts', []).append('tcp://10.0.0.5:4243')\n", 2),
    "variables of several lines": ("g/a.yml", "docker_options: >-\n  --debug\n  -H tcp://10.0.0.5:4243\n", 3),
    "Kustomize": ("a.yaml", "literals:\n- daemon.json={\"hosts\":[\"tcp://0.0.0.0:4243\"]}\n", 2),
    "runit": ("etc/sv/docker/conf", "\nOPTS='-H tcp://10.0.0.5:4243'\n", 2),
    "balenaEngine": ("a.sh", "\nbalenad -H 10.0.0.5:4243\n", 2),
    "balenaEngine: a drop-in": (
        "balena.service.d/a.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/balenad -H fd:// -H 10.0.0.5:4243\n", 3),
    "PowerShell, UTF-32": ("a.ps1", "\ndockerd -H tcp://10.0.0.5:4243\n", 2),
    "encoded: Ignition": (
        "a.ign", '{"ignition": {},\n"source": "data:,dockerd%20-H%20tcp%3A%2F%2F10.0.0.5"}\n', 2),
    "a script that writes a Compose file": (
        "user-data.sh", "cat > compose.yml <<E\nservices:\n  a:\n    image: x\n    ports: [80]\n    volumes:\n"
                        "    - /run/docker.sock:/s\nE\ndocker compose up -d\n", 7),
    "Butane: a unit of a local file": ("a.bu", "variant: fcos\nsystemd:\n  units:\n  - name: docker.service\n"
                                       "    contents_local: x\n", 4),
}
"""Name and text of a file, and the line that is named."""


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_not_read_is_named(name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text, line = NOT_READ[name]
    write(tmp_path, {**SAFE, path: text})
    if "UTF-16" in name:
        (tmp_path / path).write_bytes(text.encode("utf-16"))
    if "UTF-32" in name:
        (tmp_path / path).write_bytes(text.encode("utf-32"))
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".")
    assert (said.code, said.out) == (2, "nothing wrong in what could be observed\n"), said.err
    assert f"dockerd-guard: {path}:{line}: " in said.err


READ: dict[str, tuple[str, str, str]] = {
    "cloud-init: an alias": (
        "user-data", f"#cloud-config\nx: &a '{HOSTS}'\n{WRITE[14:]}content: *a\n", "user-data:2:5"),
    "cloud-init: merged keys": (
        "user-data", f"#cloud-config\nx: &a {{content: '{HOSTS}'}}\n{WRITE[14:]}<<: *a\n", "user-data:2:18"),
    "cloud-init: !!binary": ("user-data", f"{WRITE}content: !!binary {packed(HOSTS)}\n", "user-data:4:12"),
    "cloud-init: !!binary and gzip": (
        "user-data", f"{WRITE}encoding: gzip\n  content: !!binary {GZIP}\n", "user-data:5:12"),
    "cloud-init: a Jinja template": ("user-data", f"## template: jinja\n{WRITE}content: |\n    {HOSTS}\n",
                                     "user-data:6:17"),
    "Container Linux: a drop-in": (
        "a.yml", "coreos:\n  units:\n  - name: docker.service\n    drop-ins:\n    - name: a.conf\n"
        f"      content: |\n        [Service]\n        ExecStart=\n        ExecStart={COMMAND}\n",
        "a.yml:9:39"),
    "Butane for Flatcar": (
        "a.bu", "variant: flatcar\nsystemd:\n  units:\n  - name: docker.service\n    dropins:\n    - name: a.conf\n"
        "      contents: |\n        [Service]\n        Environment=DOCKER_OPTS=--host=tcp://0.0.0.0:2375\n",
        "a.bu:9:40"),
    "Container Linux: a socket": (
        "a.yml", "systemd:\n  units:\n  - name: docker-tcp.socket\n    contents: |\n"
        "      [Socket]\n      ListenStream=2375\n      Service=docker.service\n", "a.yml:6:7"),
    "Kubernetes: a Secret": ("a.yml", f"kind: Secret\ndata:\n  daemon.json: {packed(HOSTS)}\n", "a.yml:3:16"),
    "a socket unit of any name": (
        "api.socket", "[Socket]\nListenStream=2375\nService=docker.service\n", "api.socket:2:1"),
}
"""Name and text of a file, and where DG103 is."""


@pytest.mark.parametrize("name", READ)
def test_what_is_read(name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text, place = READ[name]
    write(tmp_path, {path: text})
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".", "--select", "DG103")
    assert said.code == 1 and said.out.startswith(f"{place}: error: tcp://"), said.out + said.err


HARMLESS: dict[str, tuple[str, str]] = {
    "a client": ("a.sh", "docker -H tcp://0.0.0.0:2375 ps; export DOCKER_HOST=tcp://10.0.0.5:2376\n"),
    "a client with TLS": ("a.sh", "docker --tlsverify -H tcp://10.0.0.5:2376 info\n"),
    "a client with options": (
        "a.sh", "docker --tlscacert ca.pem --log-level=debug -H tcp://0.0.0.0:2375 ps; docker -Htcp://0.0.0.0:2375 ps\n"
                "docker \\\n  -H tcp://0.0.0.0:2375 ps\n"),
    "clients without a scheme": (
        "a.sh", "docker -H 10.0.0.5:4243 ps\ncurl -H 10.0.0.5 x\nsystemctl restart docker\nldapsearch -H :389\n"),
    "other programs with such an option": (
        "docker/a.sh", "serve -H 0.0.0.0:3000\nuwsgi -H /x --http 0.0.0.0:80\ndocker -D -H 0.0.0.0:2375 ps\n"),
    "an environment file that nothing reads": ("etc/default/dockerd", "DOCKERD_ARGS=--debug\n"),
    "Chef: a client": (
        "a.rb", "docker_service 'a' do\nend\ndocker_container 'b' do\n  host 'tcp://10.0.0.5:2375'\nend\n"),
    "a list of another program": ("a.yml", "- module: docker\n  hosts: ['0.0.0.0:9200', '10.0.0.5:9200']\n"),
    "Metricbeat": ("metricbeat.yml", "- module: docker\n  hosts: ['tcp://10.0.0.5:2375']\n"),
    "Prometheus": ("prometheus.yml", "# docker\nstatic_configs:\n- targets: ['10.0.0.5:9323', '0.0.0.0:2375']\n"),
    "Traefik": ("traefik.yml", "providers:\n  docker:\n    endpoint: 'tcp://0.0.0.0:2375'\n"),
    "a test of the port": ("a.sh", "# docker\nss -ltn | grep -q '0.0.0.0:2375' && exit 1\n"),
    "a port of the host": (
        "t.yml", f"{TASK[:15]}  docker_container:\n    image: registry\n    ports: ['2375:5000', '0.0.0.0:2376:80']\n"),
    "encoded: an image and a digest": (
        "a.yml", f"icon: data:image/png;base64,{packed(chr(0) * 99)}\ndocker: {'0123456789abcdef' * 4}\n"),
    "encoded: many other texts": (
        "a.yml", "# docker\n" + "".join(f"- {packed(f'other text with a number: {n}')}\n" for n in range(500))),
    "encoded: digests": ("a.sh", "# docker\n" + f"{COMMAND.encode().hex()[:6]}{'0123456789abcdef' * 4} x\n" * 300),
    "a search in a file of dockerd": (
        "a.sh", "\n! rg tcp: /etc/docker/daemon.json\ngrep -q tcp://10.0.0.5 /lib/systemd/system/docker.service\n"),
    "an assertion": ("a.yml", f"{TASK}assert: {{that: \"'tcp://0.0.0.0:2375' not in dockerd.stdout\"}}\n"),
    "the output of docker info": (
        "info.json", '{"OperatingSystem":"Docker","Warnings":["WARNING: API is accessible on http://0.0.0.0:2375"]}\n'),
    "encoded: a client": ("a.sh", f"echo {packed('docker -H tcp://10.0.0.5:2375 ps')} | base64 -d | sh\n"),
    "another program after docker.service": (
        "a.service", "[Unit]\nAfter=docker.service\n[Service]\nExecStart=/bin/a --broker tcp://10.0.0.5:1883\n"),
    "a variable of a container": (
        "a.service", "[Service]\nExecStart=docker run --rm -e URL=tcp://broker:1883 x\n"),
    "a context": ("a.sh", "docker context create a --docker 'host=tcp://10.0.0.5:2376,ca=x'\n"),
    "GitLab's docker-in-docker": (
        ".gitlab-ci.yml", "services: [docker:dind]\nvariables: {DOCKER_HOST: 'tcp://docker:2375'}\n"
        "script:\n- docker -H tcp://docker:2375 ps\n"),
    "Ansible: hosts": ("a.yml", "- hosts: docker\n  vars: {docker_host: 'tcp://10.0.0.5:2376'}\n"),
    "documentation": ("README.md", f"{COMMAND}\n"),
    "a comment": ("a.sh", f"# {COMMAND}\n"),
    "another port": ("a.sh", "docker run -p 9000:9000 x --listen tcp://10.0.0.5:9000\n"),
    "a web server in a Dockerfile": ("Dockerfile", 'FROM ruby\nCMD ["puma", "-b", "tcp://0.0.0.0:3000"]\n'),
    "a web server in Compose": (
        "docker-compose.yml", "services:\n  web:\n    command: puma -b tcp://0.0.0.0:${PORT}\n    ports: ['80:80']\n"),
    "a log server in Compose": (
        "compose.yaml", "services:\n  web:\n    image: docker.io/web\n    logging: {driver: syslog, options: "
                        "{syslog-address: 'tcp://0.0.0.0:514'}}\n"),
    "ZeroMQ": ("docker/server.py", "socket.bind('tcp://*:5555')\n"),
    "a long file of something else": ("api.yaml", "services:\n" + " a: b\n" * 9000),
    "cloud-init: hosts that are judged": ("user-data", f"{WRITE}content: |\n    {{\"metrics-addr\":\n"
                                          "    \"0.0.0.0:2375\"}\nruncmd: [systemctl restart docker]\n"),
    "a unit after docker.service": ("app.service", "[Unit]\nAfter=docker.service\n[Service]\nExecStart=/bin/app\n"),
    "a policy": ("policy.yaml", "version: 1\nsockets:\n- {address: 'tcp://0.0.0.0:2376', tls: mutual}\n"),
    "a client of the socket": ("t.conf", 'endpoint = "unix:///var/run/docker.sock"\nserver 10.0.0.1;\n'),
    "a proxy of something else": ("n.conf", "# docker\nlocation / { proxy_pass http://unix:/run/app.sock; }\n"),
    "docker run: the socket, and a port of another": (
        "a.sh", "docker run --rm -v /var/run/docker.sock:/x trivy\ndocker run -p 80:80 nginx\nmkdir -p /x\n"),
    "Kubernetes: the socket and no port": ("ds.yaml", "volumes:\n- hostPath: {path: /var/run/docker.sock}\n"),
    "Ansible: a container without the socket": ("t.yml", "- docker_container: {published_ports: ['80:80']}\n"),
    "ranges of a firewall": (
        "a.sh", "# docker\niptables -A INPUT -p tcp --dport 2375:2376 -j DROP\nufw deny 2375:2376/tcp\n"),
    "a firewall": ("ufw/docker", "[Docker]\nports=2375,2376/tcp\n"),
    "tmpfiles.d: a directory": ("tmpfiles.d/docker.conf", "d /etc/docker 0755 root root -\n"),
    "Podman as packaged": ("podman.socket", "[Socket]\nListenStream=%t/podman/podman.sock\n"),
    "a socket of another program": ("app.socket", "# docker\n[Socket]\nListenStream=9090\n"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_sets_no_host_is_not_named(name: str, tmp_path: Path, call: Call) -> None:
    path, text = HARMLESS[name]
    write(tmp_path, {**SAFE, path: text})
    said = call("lint", tmp_path)
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.out + said.err


@pytest.mark.parametrize("text", [
    "docker tcp://0.0.0.0:1 ", "tcp://*:5 x", f"tcp://[::]:3000 {'y' * 500}\n", f"tcp://0.0.0.0:1 {'docker--' * 60}\n",
    f"{'docker --a ' * 28}tcp:a\n"])
def test_many_addresses_of_other_programs_end_soon(text: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, {**SAFE, "Dockerfile": (text * 100_000)[:1 << 20]})
    def work() -> None:
        assert call("lint", tmp_path).code in (0, 2)

    check_cpu_time(work, 1.5)


def test_more_addresses_than_are_looked_at_are_named_as_such(tmp_path: Path, call: Call) -> None:
    write(tmp_path, {**SAFE, "docker.sh": "x tcp://0.0.0.0:80\n" * 2_001})
    assert "docker.sh:2001: more than 2000 addresses, in a form that is not evaluated" in call("lint", tmp_path).err


def test_more_encoded_texts_than_are_read_are_named_as_such(tmp_path: Path, call: Call) -> None:
    write(tmp_path, {**SAFE, "a.yml": f"- {packed('the word docker alone')}\n" * 201})
    assert "a.yml:201: has more encoded text than is read, in a form" in call("lint", tmp_path).err


@pytest.mark.parametrize(("path", "code", "said"), [
    ("docker.socket", 1, "DG202"),
    ("docker.service", 0, "nothing wrong"),
    ("docker.service.d/10-tcp.conf", 0, "nothing wrong"),
    ("app.service", 2, "contains no configuration of dockerd"),
    ("multi-user.target.wants/docker.service", 2, "contains no configuration of dockerd"),
])
def test_a_link_to_dev_null_masks_a_unit(path: str, code: int, said: str, tmp_path: Path, call: Call) -> None:
    link = tmp_path / "etc/systemd/system" / path
    link.parent.mkdir(parents=True)
    link.symlink_to("/dev/null")
    found = call("lint", tmp_path)
    assert (found.code, said in found.out + found.err) == (code, True), found.out + found.err


@pytest.mark.parametrize("text", [
    "docker_container docker.sock ", "TCP-L:", "docker run \\\n", "hostPort: 1 hostPath: docker.sock ", "ports: 2375 ",
    "server docker.sock ", "dind ", "proxy_pass docker.sock ", f"{packed('docker tcp://x ports: ')},",
    f"{GZIP},", "data:,docker%20tcp ", "docker 0123456789abcdef01234567\n",
    "aa aa aa aa aa aa aa aa aa aa aa aa+ ", "docker deadbeef ", "\\x41", "\\101", "tcp:\\/\\/1.1.1.1:1 daemon.json ",
    "docker_options -H ", "'hosts'.append(", pytest.param("aa " * 349_524 + "aa+", id="one that ends otherwise")])
def test_long_files_of_something_else_end_soon(text: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, {**SAFE, "docker.sh": (text * ((1 << 20) // len(text) + 1))[:1 << 20]})
    def work() -> None:
        assert call("lint", tmp_path).code in (0, 2)

    check_cpu_time(work, 3)


@pytest.mark.parametrize("name", ["a unit after docker.service", "a socket of another program"])
def test_another_unit_is_not_a_configuration_of_dockerd(name: str, tmp_path: Path, call: Call) -> None:
    path, text = HARMLESS[name]
    write(tmp_path, {path: text})
    assert call("lint", tmp_path).code == 2 and call("lint", tmp_path / path).code == 2


def test_packed_user_data_is_named(tmp_path: Path, call: Call) -> None:
    write(tmp_path, {**SAFE, "a/user-data": 'Content-Type: multipart/mixed; boundary="X"\n\n--X\n'})
    (tmp_path / "user-data.gz").write_bytes(gzip.compress(f"#cloud-config\n{COMMAND}\n".encode()))
    said = call("lint", tmp_path)
    assert said.code == 2 and said.err.count("compressed, or several files in MIME format; not evaluated") == 2


@pytest.mark.parametrize("target", ["gone", "docker.service", "/etc/hostname", "../.."])
def test_a_link_that_is_not_read_is_named(target: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, {f"repo/{next(iter(SAFE))}": "{}"})
    (tmp_path / "repo/docker.service").symlink_to(target)
    said = call("lint", tmp_path / "repo")
    assert said.code == 2 and "docker.service: a link that leads out of the directory, or nowhere" in said.err


@pytest.mark.parametrize("target", ["/var/run/docker.sock", "../../run/docker.sock", "/run", "/"])
def test_a_link_to_the_socket_is_named(target: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, {**SAFE, "a.sh": "docker run -v ./api:/x -p 80:80 i\n"})
    (tmp_path / "api").symlink_to(target)
    said = call("lint", tmp_path)
    assert said.code == 2 and "api: a link to the API socket" in said.err


def test_a_link_that_enables_a_unit_is_not_named(tmp_path: Path, call: Call) -> None:
    write(tmp_path, SAFE)
    for unit in ("multi-user.target.wants/docker.service", "sockets.target.wants/dirmngr.socket"):
        link = tmp_path / "etc/systemd/system" / unit
        link.parent.mkdir(parents=True)
        link.symlink_to(f"/lib/systemd/system/{link.name}")
    said = call("lint", tmp_path)
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.err


def test_the_bytes_of_a_directory_are_limited(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_arguments, "MAX_SCANNED_BYTES", 100)
    write(tmp_path, {"a.sh": "#" * 90, "b.sh": "#" * 90, "c.sh": "#", "daemon.json": HOSTS})
    said = call("lint", tmp_path)
    assert said.code == 2 and said.err.count("; the rest is not read") == 1 and "b.sh: the files up to here" in said.err


def test_a_fifo_in_the_place_of_a_file_is_named(tmp_path: Path, call: Call) -> None:
    write(tmp_path, SAFE)
    os.mkfifo(tmp_path / "docker.service")
    said = call("lint", tmp_path)
    assert said.code == 2 and "docker.service: not a regular file; not read" in said.err


@pytest.mark.parametrize(("path", "code"), [
    ("user-data", 2), ("docker-compose.yml", 2), ("override.conf", 2), ("photo.png", 0), ("openapi.yaml", 0)])
def test_a_large_file_is_named_if_it_may_be_of_docker(path: str, code: int, tmp_path: Path, call: Call) -> None:
    write(tmp_path, {**SAFE, path: "#cloud-config\n" + "# \n" * 400_000})
    said = call("lint", tmp_path)
    assert said.code == code and (f"{path}: larger than 1 MiB; not read" in said.err) == (code == 2), said.err


def test_many_alternatives_end_soon(tmp_path: Path, call: Call) -> None:
    """200 drop-ins for one place, each as long as is read of a file, in 50 kB."""
    heavy = "[Service]\n" + "ExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n" * 100
    packed = base64.b64encode(gzip.compress(heavy.encode())).decode()
    entry = f"- path: /etc/systemd/system/docker.service.d/a.conf\n  encoding: gz+b64\n  content: {packed}\n"
    write(tmp_path, {"user-data": "#cloud-config\nwrite_files:\n" + entry * 200})
    def work() -> None:
        said = call("lint", tmp_path / "user-data")
        assert "more alternatives for one place on a host than are judged" in said.err

    check_cpu_time(work, 3)


def test_packed_files_are_small_together(tmp_path: Path, call: Call) -> None:
    packed = base64.b64encode(gzip.compress(b"\n" * (1 << 20))).decode()
    entry = f"- path: /etc/docker/daemon.json\n  encoding: gz+b64\n  content: {packed}\n"
    write(tmp_path, {"user-data": "#cloud-config\nwrite_files:\n" + entry * 600})
    said = call("lint", tmp_path / "user-data")
    assert said.code == 2 and "the files in it have more than 1 MiB together" in said.err


@pytest.mark.parametrize("text", ["a=b\n" * 250_000, "- " * 500_000, "{" * 900_000], ids=["lines", "words", "marks"])
def test_limits_hold_for_standard_input(text: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    said = call("lint", "-", "--stdin-filename", "docker.service")
    assert said.code == 2 and "; not read" in said.err


def test_a_script_that_a_unit_runs_is_evaluated(tmp_path: Path, call: Call) -> None:
    write(tmp_path, {"etc/systemd/system/docker.service.d/a.conf": "[Service]\nExecStart=\nExecStart=/opt/start.sh\n",
                     "opt/start.sh": "#!/bin/sh\nexec dockerd -H tcp://0.0.0.0:2376 --tlsverify --tlscacert=/c/ca "
                                     "--tlscert=/c/cert --tlskey=/c/key\n"})
    said = call("lint", tmp_path)
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.out + said.err


def write(here: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)
