"""`lint FILE...`: files and directories of repositories, judged with stock units where something is missing."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time
from tests.support.places import wrong_places

pytest_plugins = ["tests.support.fixtures"]

OVERRIDE = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// -H tcp://0.0.0.0:2375\n"
SAFE = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// --debug\n"
HOSTS = '{"hosts": ["tcp://0.0.0.0:2375"]}\n'
SOCKET = "[Socket]\nListenStream=0.0.0.0:2375\n"
UNIT = "[Service]\nType=notify\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n"
USER_UNIT = "[Service]\nExecStart=/usr/bin/dockerd-rootless.sh -H tcp://0.0.0.0:2375\n"
BASE64 = base64.b64encode(HOSTS.encode()).decode()
GZIP = base64.b64encode(gzip.compress(HOSTS.encode())).decode()


class Case(NamedTuple):
    """Files, the arguments (all files if empty), the DG103 and DG107 findings as FILE:LINE:COLUMN, and the code."""

    files: dict[str, str]
    found: list[str]
    code: int = 1
    arguments: tuple[str, ...] = ()


def cloud_init(entry: str) -> str:
    return "#cloud-config\nwrite_files:\n" + textwrap.indent(entry, "  ")


SOCKET_VOLUME = "    volumes: ['/var/run/docker.sock:/var/run/docker.sock']\n"

CASES = {
    "drop-in": Case({"override.conf": OVERRIDE}, ["override.conf:3:40"]),
    "drop-in that is safe": Case({"override.conf": SAFE}, [], 0),
    "daemon.json": Case({"daemon.json": HOSTS}, ["daemon.json:1:13"]),
    "daemon.json that is safe": Case({"daemon.json": '{"log-level": "warn"}'}, [], 0),
    "daemon.json of another name": Case({"docker-daemon-prod.json": HOSTS}, ["docker-daemon-prod.json:1:13"]),
    "docker.service": Case({"docker.service": UNIT}, ["docker.service:3:31"]),
    "docker.socket": Case({"docker.socket": SOCKET}, ["docker.socket:2:1"]),
    "drop-in of docker.socket": Case({"listen.conf": SOCKET}, ["listen.conf:2:1"]),
    "daemon.json and docker.service": Case(
        {"daemon.json": HOSTS, "docker.service": "[Service]\nExecStart=/usr/bin/dockerd\n"}, ["daemon.json:1:13"]),
    "environment file of Debian": Case({"etc/default/docker": "DOCKER_OPTS='-H tcp://0.0.0.0:2375'\n"},
                                       ["etc/default/docker:1:17"]),
    "environment file of another name": Case({"docker.default": "DOCKER_OPTS='-H tcp://0.0.0.0:2375'\n"},
                                             ["docker.default:1:17"]),
    "environment file of Fedora": Case({"docker.sysconfig": "OPTIONS='-H tcp://0.0.0.0:2375'\n"},
                                       ["docker.sysconfig:1:13"]),
    "user unit": Case({"home/a/.config/systemd/user/docker.service": USER_UNIT},
                      ["home/a/.config/systemd/user/docker.service:2:43"]),
    "another unit that runs dockerd": Case({"my-engine.service": UNIT}, ["my-engine.service:3:11"]),
    "a directory": Case({"roles/docker/files/override.conf": OVERRIDE, "roles/docker/tasks/main.yml": "- name: x\n",
                         "roles/docker/README.md": "-H tcp://0.0.0.0:2375\n"},
                        ["roles/docker/files/override.conf:3:40"], 1, ("roles/docker/",)),
    "a directory with two roles": Case(
        {"a/files/daemon.json": HOSTS, "b/files/daemon.json": '{\n "hosts": ["tcp://10.0.0.1:2375"]}\n'},
        ["a/files/daemon.json:1:13", "b/files/daemon.json:2:13"], 1, (".",)),
    "a root directory inside": Case(
        {"images/web/etc/systemd/system/docker.service.d/a.conf": OVERRIDE, "images/db/etc/docker/daemon.json": "{}"},
        ["images/web/etc/systemd/system/docker.service.d/a.conf:3:40"], 1, ("images",)),
    "a directory without Docker": Case({"site/nginx.conf": "server {}\n", "site/a.yml": "services: {}\n"}, [], 2,
                                       ("site",)),
    "a file that is something else": Case({"notes.txt": "tcp://0.0.0.0:2375\n"}, [], 2),
    "a unit that only has to do with Docker": Case(
        {"docker-prune.service": "[Service]\nExecStart=/usr/bin/docker system prune -f\n"}, [], 2),
    "a mandatory environment file": Case(
        {"override.conf": "[Service]\nEnvironmentFile=/etc/docker.env\nExecStart=\nExecStart=/usr/bin/dockerd $O\n"},
        [], 2),
    "an environment file that is another argument": Case(
        {"override.conf": "[Service]\nEnvironmentFile=/etc/docker.env\nExecStart=\nExecStart=/usr/bin/dockerd $O\n",
         "docker.env.j2": "O=-H tcp://0.0.0.0:2375\n"}, ["docker.env.j2:1:6"]),
    "an environment file beside": Case(
        {"a/override.conf": "[Service]\nEnvironmentFile=-/etc/my.env\nExecStart=\nExecStart=/usr/bin/dockerd $O\n",
         "a/my.env": "O=-H tcp://0.0.0.0:2375\n"}, ["a/my.env:1:6"], 1, ("a/override.conf",)),
    "an environment file below the root directory": Case(
        {"root/etc/systemd/system/docker.service.d/a.conf":
         "[Service]\nEnvironmentFile=/opt/my.env\nExecStart=\nExecStart=/usr/bin/dockerd $O\n",
         "root/opt/my.env": "O=-H tcp://0.0.0.0:2375\n"}, ["root/opt/my.env:1:6"], 1, (".",)),
    "a configuration file elsewhere": Case(
        {"docker.service": "[Service]\nExecStart=/usr/bin/dockerd --config-file /opt/d.json\n", "daemon.json": HOSTS},
        ["daemon.json:1:13"]),
    "a configuration file that is not there": Case(
        {"docker.service": "[Service]\nExecStart=/usr/bin/dockerd --config-file /opt/d.json\n"}, [], 2),
    "a script": Case({"docker.service": "[Service]\nExecStart=/opt/start\n",
                      "start": "#!/bin/sh\nexec dockerd -H tcp://0.0.0.0:2375\n"}, ["docker.service:2:11"]),
    "a script that is not there": Case({"docker.service": "[Service]\nExecStart=/opt/start\n"}, [], 2),
    "cloud-init: an environment file": Case({"user-data": cloud_init(
        "- path: /etc/systemd/system/docker.service.d/a.conf\n  content: |\n    [Service]\n"
        "    EnvironmentFile=/etc/o\n    ExecStart=\n    ExecStart=/usr/bin/dockerd $O\n"
        "- path: /etc/o\n  content: |\n    O=-H tcp://0.0.0.0:2375\n")}, ["user-data:11:12"]),
    "/usr/lib and /etc": Case(
        {"usr/lib/systemd/system/docker.service": "[Service]\nExecStart=/usr/bin/dockerd\n",
         "etc/docker/daemon.json": '{"hosts": ["fd://"]}', "usr/lib/systemd/system/docker.socket":
         "[Socket]\nListenStream=/run/docker.sock\nSocketMode=0660\n"}, [], 0, (".",)),
    "certificates are not among the files": Case(
        {"daemon.json": '{"tlsverify": true, "tlscacert": "/c/ca.pem", "tlscert": "/c/c.pem", "tlskey": "/c/k.pem"}'},
        [], 0),
    # Templates
    "Jinja2: an address": Case({"daemon.json.j2": '{"hosts": ["tcp://{{ ip }}:2375"]}'}, ["daemon.json.j2:1:13"]),
    "Jinja2: a port": Case({"override.conf.j2": OVERRIDE.replace("2375", "{{ port | default(2375) }}")},
                           ["override.conf.j2:3:40"]),
    # Whatever these hosts are, they conflict with -H of the stock unit (DG201).
    "Jinja2: not known: all hosts": Case({"daemon.json.j2": '{"hosts": {{ docker_hosts | to_json }}}'}, []),
    "Jinja2: not known: a loop over hosts": Case(
        {"daemon.json.j2": '{"hosts": [{% for h in hosts %}"{{ h }}"{% if not loop.last %},{% endif %}{% endfor %}]}'},
        []),
    "Jinja2: hosts alone": Case({"docker.service": "[Service]\nExecStart=/usr/bin/dockerd\n",
                                 "daemon.json.j2": '{"hosts": {{ docker_hosts | to_json }}}'}, [], 2),
    "Terraform": Case({"docker.service.tftpl": "[Service]\nExecStart=/usr/bin/dockerd ${options}\n"}, [], 2),
    "Jinja2: the whole file": Case({"daemon.json.j2": "{{ docker_daemon_options | to_nice_json }}\n"}, [], 2),
    "Jinja2: options": Case({"override.conf.j2": SAFE.replace("--debug", "{{ docker_opts }}")}, [], 2),
    "Jinja2: what does not matter": Case(
        {"daemon.json.j2": '{"data-root": "{{ root }}", "mtu": {{ mtu }}, "storage-driver": "{{ driver }}"}'}, [], 0),
    "Jinja2: a branch": Case(
        {"override.conf.j2": SAFE.replace("ExecStart=/usr", "{% if tls %}\nExecStart=/usr")
         + "{% else %}\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n{% endif %}\n"}, ["override.conf.j2:6:31"]),
    "Jinja2: a branch between others": Case(
        {"override.conf.j2": "[Service]\nExecStart=\n{% if a %}\nExecStart=/usr/bin/dockerd\n{% elif b %}\n"
         "ExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n{% else %}\nExecStart=/usr/bin/dockerd\n{% endif %}\n"},
        ["override.conf.j2:6:31"]),
    "Jinja2: the first branch within an else": Case(
        {"override.conf.j2": "[Service]\nExecStart=\n{% if a %}\nExecStart=/usr/bin/dockerd\n{% else %}{% if b %}\n"
         "ExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n{% else %}\nExecStart=/usr/bin/dockerd\n"
         "{% endif %}{% endif %}"},
        ["override.conf.j2:6:31"]),
    "Jinja2: the second branch within a first": Case(
        {"daemon.json.j2": '{ {% if a %}{% if b %}"ipv6": true{% else %}"hosts": ["tcp://0.0.0.0:2375"]{% endif %}\n'
         '{% else %}"ipv6": false{% endif %} }'}, ["daemon.json.j2:1:56"]),
    "Jinja2: more branches than are judged": Case(
        {"override.conf.j2": SAFE + "{% if a %}\n" + "{% elif b %}\n" * 20 + "{% endif %}\n"}, [], 2),
    "Jinja2: more expressions than are read": Case(
        {"override.conf.j2": SAFE + "Environment=A={{ a }}\n" * 201}, [], 2),
    "Jinja2: an included file": Case({"daemon.json.j2": '{ "ipv6": true {% include "hosts.j2" %} }'}, [], 2),
    "Jinja2: an included file alone": Case({"daemon.json.j2": '{%- include "base.json" %}\n'}, [], 2),
    "Jinja2: an included file in a unit": Case({"override.conf.j2": SAFE + '{% include "more.j2" %}\n'}, [], 2),
    "Jinja2: a key": Case({"daemon.json.j2": '{ "{{ key }}": ["tcp://0.0.0.0:2375"] }'}, [], 2),
    "Jinja2: a loop over keys": Case(
        {"daemon.json.j2": '{ {% for k, v in o.items() %}"{{ k }}": {{ v }}{{ "," if not loop.last }}{% endfor %} }'},
        [], 2),
    "Jinja2: a key of a map": Case({"daemon.json.j2": '{ "log-opts": {"{{ key }}": "1"} }'}, [], 0),
    "Go template: another template": Case({"override.conf.tmpl": SAFE + '{{ template "more" . }}\n'}, [], 2),
    "Jinja2: not JSON without its values": Case({"daemon.json.j2": '{"mtu": 1 {{ more }} "x": 2}'}, [], 2),
    "Go template: a branch": Case(
        {"daemon.json.tmpl": '{"hosts": [{{ if .Open }}"tcp://0.0.0.0:2375"{{ else }}"fd://"{{ end }}]}'},
        ["daemon.json.tmpl:1:27"]),
    "Go template of dockerd itself": Case({"daemon.json": '{"log-opts": {"tag": "{{.Name}}"}}'}, [], 0),
    "shell variables": Case({"daemon.json": '{"hosts": ["tcp://${IP}:2375"]}'}, ["daemon.json:1:13"]),
    "systemd's own variables": Case({"docker.service": "[Service]\nEnvironment=A=--debug\n"
                                     "ExecStart=/usr/bin/dockerd -H fd:// ${A}\n"}, [], 0),
    "ERB": Case({"override.conf.erb": OVERRIDE.replace("0.0.0.0", "<%= @ip %>")}, ["override.conf.erb:3:40"]),
    # Files within files
    "cloud-init": Case({"user-data": cloud_init(
        '- path: /etc/docker/daemon.json\n  content: |\n    {\n      "hosts": ["tcp://0.0.0.0:2375"]\n    }\n')},
        ["user-data:6:20"]),
    "cloud-init: base64": Case({"user-data": cloud_init(
        f"- path: /etc/docker/daemon.json\n  encoding: b64\n  content: {BASE64}\n")}, ["user-data:5:14"]),
    "cloud-init: gzip": Case({"cloud.yaml": cloud_init(
        f"- encoding: gz+b64\n  path: /etc/docker/daemon.json\n  content: {GZIP}\n")}, ["cloud.yaml:5:14"]),
    "cloud-init: a template": Case({"user-data.tftpl": cloud_init(
        "- path: /etc/systemd/system/docker.service.d/a.conf\n  content: |\n"
        + textwrap.indent(OVERRIDE.replace("0.0.0.0", "{{ ip }}"), "    "))}, ["user-data.tftpl:7:46"]),
    "cloud-init that is safe": Case({"user-data": cloud_init(
        "- path: /etc/docker/daemon.json\n  content: '{}'\n")}, [], 0),
    "cloud-init without Docker": Case({"user-data": "#cloud-config\npackages: [docker.io]\n"}, [], 2),
    "Butane": Case({"config.bu": "variant: fcos\nversion: 1.5.0\nsystemd:\n  units:\n    - name: docker.service\n"
                    "      dropins:\n        - name: a.conf\n          contents: |\n"
                    + textwrap.indent(OVERRIDE, " " * 12)}, ["config.bu:11:52"]),
    "Butane: a file": Case({"config.bu": "variant: flatcar\nstorage:\n  files:\n    - path: /etc/docker/daemon.json\n"
                            "      contents:\n        inline: '{\"hosts\": [\"tcp://0.0.0.0:2375\"]}'\n"},
                           ["config.bu:6:18"]),
    "Ignition": Case({"config.ign": json.dumps({"ignition": {"version": "3.4.0"}, "storage": {"files": [
        {"path": "/etc/docker/daemon.json", "contents": {"source": "data:," + quote(HOSTS)}}]}}, indent=1)},
        ["config.ign:10:17"]),
    "Ansible: a task with content": Case({"tasks/main.yml":
        "- name: configure\n  copy:\n    dest: /etc/docker/daemon.json\n    content: |\n"
        + textwrap.indent(HOSTS, "      ")}, ["tasks/main.yml:5:19"], 1, (".",)),
    "Ansible: content that is an expression": Case({"tasks/main.yml":
        "- name: configure\n  copy:\n    dest: /etc/docker/daemon.json\n"
        "    content: \"{{ {'hosts': ['tcp://0.0.0.0:2375']} | to_nice_json }}\"\n"}, [], 2, (".",)),
    "Kubernetes: a ConfigMap": Case({"cm.yaml": "kind: ConfigMap\ndata:\n  daemon.json: |\n"
                                     + textwrap.indent(HOSTS, "    ")}, ["cm.yaml:4:17"], 1, (".",)),
    "Compose: the socket and a port": Case({"compose.yaml":
        "services:\n  portainer:\n    ports:\n      - '9000:9000'\n    volumes:\n"
        "      - /var/run/docker.sock:/var/run/docker.sock\n"}, ["compose.yaml:4:10"]),
    "Compose: long syntax": Case({"docker-compose.yml":
        "services:\n  proxy:\n    ports:\n      - {target: 2375, published: 2375}\n    volumes:\n"
        "      - {type: bind, source: /run/docker.sock, target: /run/docker.sock}\n"}, ["docker-compose.yml:4:35"]),
    "Compose: the network of the host": Case({"compose.yaml":
        "services:\n  agent:\n    network_mode: host\n    volumes: ['/var/run/docker.sock:/var/run/docker.sock']\n"},
        ["compose.yaml:3:19"]),
    "Compose: a directory with the socket": Case({"compose.yaml":
        "services:\n  agent:\n    ports: ['9000:9000']\n    volumes: ['/:/host']\n"}, ["compose.yaml:3:14"]),
    "Compose: a variable as the socket": Case({"compose.yaml":
        "services:\n  agent:\n    ports: ['9000:9000']\n"
        "    volumes: ['${DOCKER_SOCK:-/var/run/docker.sock}:/var/run/docker.sock']\n"}, ["compose.yaml:3:14"]),
    "Compose: a named volume": Case({"compose.yaml":
        "services:\n  db:\n    ports: ['5432:5432']\n    volumes: [{type: volume, target: /run}]\n",
        "daemon.json": "{}"}, [], 0, (".",)),
    "Compose: merged keys beside a configuration that is safe": Case({"compose.yaml":
        "x-base: &base\n  volumes: ['/var/run/docker.sock:/var/run/docker.sock']\n"
        "services:\n  agent:\n    <<: *base\n    ports: ['9000:9000']\n", "daemon.json": "{}"},
        ["compose.yaml:6:14"], arguments=(".",)),
    "Compose: merged keys, and nothing of Docker": Case({"compose.yaml":
        "x-base: &base\n  restart: always\nservices:\n  db:\n    <<: *base\n", "daemon.json": "{}"}, [], 0, (".",)),
    "Compose: no port": Case({"compose.yaml":
        "services:\n  agent:\n    volumes: ['/var/run/docker.sock:/var/run/docker.sock']\n"
        "  web:\n    ports: ['80:80']\n"}, [], 0),
    "Compose: no socket": Case({"compose.yaml": "services:\n  web:\n    ports: ['80:80']\n"}, [], 2),
    "Compose: no socket, in a directory": Case({
        "compose.yaml": "services:\n  web: {ports: ['80:80']}\n"}, [], 2, (".",)),
    "Compose: no socket, beside a configuration": Case({
        "compose.yaml": "services:\n  web:\n    ports: ['80:80']\n", "daemon.json": "{}"}, [], 0),
    "Compose: a port in compose.override.yaml": Case({
        "compose.yaml": f"services:\n  a:\n{SOCKET_VOLUME}", "compose.override.yaml":
        "services:\n  a: {ports: ['80:80']}\n"}, ["compose.override.yaml:2:16"], 1, (".",)),
    "Compose: two alternatives": Case({
        "compose.a.yaml": f"services:\n  a:\n{SOCKET_VOLUME}", "compose.b.yaml":
        "services:\n  a: {ports: ['80:80']}\n"}, [], 0, (".",)),
    "Compose: the network of another service": Case({"compose.yaml":
        f"services:\n  a:\n    network_mode: service:b\n{SOCKET_VOLUME}  b: {{ports: [80]}}\n"}, ["compose.yaml:5:15"]),
    "Compose: a service that is extended": Case({
        "compose.yaml": "services:\n  a: {extends: {service: b, file: docker-compose.yml}, ports: [80]}\n",
        "docker-compose.yml": f"services:\n  b:\n{SOCKET_VOLUME}"}, ["compose.yaml:2:64"], 1, (".",)),
    "Compose: one line of JSON": Case({"compose.json":
        '{"services": {"a": {"ports": ["80:80"], "volumes": ["/var/run/docker.sock:/x"]}}}'},
        ["compose.json:1:32"], 1, (".",)),
    "Compose: its first format": Case({"docker-compose.yml":
        "a:\n  image: x\n  ports: ['80:80']\n  volumes: ['/var/run/docker.sock:/x']\n"}, ["docker-compose.yml:3:12"]),
    "Compose: a volume that is the socket": Case({"compose.yaml":
        "services:\n  a: {ports: ['80:80'], volumes: ['s:/x']}\n"
        "volumes:\n  s: {driver_opts: {type: none, o: bind, device: /var/run/docker.sock}}\n"}, ["compose.yaml:2:16"]),
    "Compose: a port that is chosen": Case({"compose.yaml":
        f"services:\n  a:\n    ports: [{{target: 80}}]\n{SOCKET_VOLUME}"}, ["compose.yaml:3:22"]),
    "Compose: the network of an unknown container": Case({"compose.yaml":
        f"services:\n  a:\n    network_mode: container:web\n{SOCKET_VOLUME}"}, [], 2),
    "Talos: containerd": Case({"machine.yaml": "machine:\n  files:\n  - content: |\n      [grpc]\n"
        "      tcp_address = '0.0.0.0:80'\n    path: /etc/containerd/config.toml\n"}, ["machine.yaml:5:7"]),
    "Podman: a container": Case({"a.container": "[Container]\nVolume=/run/podman/podman.sock:/x\nPublishPort=80:80\n"},
                                ["a.container:3:13"]),
    "Podman: the network of the host": Case(
        {"a.container": "[Container]\nMount=type=bind,source=/run,target=/x\nNetwork=host\n"}, ["a.container:3:9"]),
    "Podman: a drop-in of a container": Case(
        {"a.container": "[Container]\nVolume=/run/podman/podman.sock:/x\n",
         "a.container.d/p.conf": "[Container]\nPodmanArgs=--label x -p 80:80\n"},
        ["a.container.d/p.conf:2:12"], 1, (".",)),
    "Podman: a container without a port": Case(
        {"a.container": "[Container]\nVolume=/run/podman/podman.sock:/x\n[Install]\n"}, [], 0),
    "Podman: its API": Case({"api.service": "[Service]\nExecStart=/usr/bin/podman system service tcp:0.0.0.0:80\n"},
                            ["api.service:2:42"]),
    "a unit of another service of Docker": Case(
        {"docker-ci.service": "[Service]\nExecStart=docker run -p 2375:2375 docker:dind\n", "daemon.json": "{}"},
        [], 2),
    "YAML that cannot be read": Case({"user-data": "#cloud-config\nwrite_files: [\n"}, [], 2),
}


def write(here: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)


def places(value: dict[str, Any]) -> list[str]:
    return sorted({f"{finding['file']}:{finding['line']}:{finding['column']}" for finding in value["findings"]
                   if finding["code"] in {"DG103", "DG107", "DG108", "DG110"}})


@pytest.mark.parametrize("name", CASES)
def test_files(name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    write(tmp_path, case.files)
    monkeypatch.chdir(tmp_path)
    said = call("lint", *(case.arguments or case.files), "--format", "json")
    assert (places(said.json), said.code) == (case.found, case.code), said.out + said.err
    assert ("error" in said.json) == (case.code == 2 or name.startswith("Jinja2: not known")), said.out
    assert list(wrong_places(call("lint", *(case.arguments or case.files)).out + said.err, tmp_path)) == []
    for finding in said.json["findings"]:
        assert finding["file"] is None or (tmp_path / finding["file"]).is_file()
        assert not any(word in finding["message"] for word in ("192.0.2.", "unknown1", "/etc/systemd/system/docker"))


def test_what_is_not_known_is_named_with_its_file(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"daemon.json.j2": '{"mtu": {{ mtu }}}', "override.conf.j2":
                     "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// --label {{ label }}\n"})
    monkeypatch.chdir(tmp_path)
    said = call("lint", "override.conf.j2", "daemon.json.j2")
    assert "guard: daemon.json.j2: values that are not known: {{ mtu }}\n" in said.err
    assert "guard: override.conf.j2: values that are not known: {{ label }}\n" in said.err


@pytest.mark.parametrize(("name", "text", "message"), [
    ("daemon.json", '{"hosts": ["unix:///var/run/docker.sock"]}', "(the stock docker.socket)"),
    ("override.conf", "[Service]\nExecStart=/usr/bin/dockerd\n", "the one in the stock docker.service; put"),
    ("etc/default/docker", "DOCKER_OPTS='-H unix:///run/docker.sock'\n", "(the stock docker.socket)"),
])
def test_no_line_of_a_stock_unit_is_named(  # noqa: PLR0913, PLR0917 -- a row and fixtures
    name: str, text: str, message: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {name: text})
    monkeypatch.chdir(tmp_path)
    for words in ([name], ["--root", "."] if "/" in name else [name, "--quiet"]):
        said = call("lint", *words)
        assert said.code == 1 and message in said.out and "/usr/lib/systemd" not in said.out, said.out


def test_a_missing_socket_is_where_the_policy_declares_it(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"daemon.json": "{}", "policy.yaml": "version: 1\nsockets:\n- fd://\n- unix:///run/other.sock\n"})
    monkeypatch.chdir(tmp_path)
    said = call("lint", "daemon.json", "--policy", "policy.yaml")
    assert said.code == 1 and "policy.yaml:4:3: error: unix:///run/other.sock is declared" in said.out, said.out


def test_no_region_is_empty(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"daemon.json": HOSTS, "a.conf.d/override.conf": "", "docker.service.d/a.txt": "[Service]\n"})
    monkeypatch.chdir(tmp_path)
    run, = call("lint", "daemon.json", "--format", "sarif").json["runs"]
    regions = [result["locations"][0]["physicalLocation"]["region"] for result in run["results"]]
    assert {"startLine": 1, "startColumn": 3, "endColumn": 8} in regions, regions
    assert all("endColumn" not in region or region["endColumn"] > region["startColumn"] for region in regions)
    assert "col=3,endColumn=8," in call("lint", "daemon.json", "--format", "github").out.replace("::", ",")


def test_what_is_not_known_is_named(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"daemon.json.j2": '{\n"hosts": ["tcp://{{ ip }}:{{ port }}", "{{ third }}"],\n"mtu": {{ mtu }}}'})
    monkeypatch.chdir(tmp_path)
    said = call("lint", "daemon.json.j2")
    assert "tcp://{{ ip }}:{{ port }} (hosts in daemon.json) exposes" in said.out
    assert "daemon.json.j2:2: the value of {{ third }} is not known, and it decides where dockerd listens" in said.err
    assert "values that are not known: {{ ip }}, {{ port }}, {{ mtu }}" in said.err


@pytest.mark.parametrize(("name", "text", "place"), [
    ("docker.socket", SOCKET, "docker.socket:2:1"),
    ("roles/x/templates/override.conf.j2", OVERRIDE, "roles/x/templates/override.conf.j2:3:40"),
    (None, HOSTS, "<stdin>:1:13"),
])
def test_standard_input(
    name: str | None, text: str, place: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    said = call("lint", "-", *(("--stdin-filename", name) if name else ()))
    assert said.code == 1 and f"{place}: error: tcp://0.0.0.0:2375" in said.out, said.out + said.err


@pytest.mark.parametrize(("target", "code"), [("files/a.txt", 1), ("../outside.txt", 2)])
def test_links_are_followed_within_the_directory(
    target: str, code: int, tmp_path: Path, call: Call
) -> None:
    """Otherwise a pull request could print files of the machine that runs the linter."""
    write(tmp_path, {"repo/files/a.txt": OVERRIDE, "outside.txt": OVERRIDE})
    (tmp_path / "repo/docker.service.d").mkdir()
    (tmp_path / "repo/docker.service.d/override.conf").symlink_to(f"../{target}")
    said = call("lint", tmp_path / "repo")
    assert said.code == code, said.out + said.err
    assert ("leads out of the directory" in said.err) == (code == 2)


@pytest.mark.parametrize("path", ["/../outside.env", "/link.env"])
def test_a_reference_does_not_lead_out_of_the_directory(path: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, {"outside.env": "O=-H tcp://0.0.0.0:2375\n", "repo/override.conf":
                     f"[Service]\nEnvironmentFile={path}\nExecStart=\nExecStart=/usr/bin/dockerd $O\n"})
    (tmp_path / "repo/link.env").symlink_to("../outside.env")
    said = call("lint", tmp_path / "repo")
    assert "2375" not in said.out, said.out
    # systemd skips a line with `..`, which is a finding; nothing is unknown.
    assert (said.code, "DG302" in said.out) == ((1, True) if ".." in path else (2, False))


@pytest.mark.parametrize(("words", "error"), [
    (["gone.conf"], "gone.conf: No such file or directory"),
    (["--root", "/", "override.conf"], "--root takes the place of files"),
])
def test_usage(words: list[str], error: str, call: Call) -> None:
    said = call("lint", *words)
    assert said.code == 2 and error in said.err


def test_the_policy_of_the_command_line(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"override.conf": OVERRIDE, "policy.yaml": "version: 1\nsockets: [fd://]\n"})
    monkeypatch.chdir(tmp_path)
    said = call("lint", "override.conf", "--policy", "policy.yaml", "--select", "DG101")
    assert said.code == 1 and "override.conf:3:40: error: the Docker API listens on tcp://0.0.0.0:2375" in said.out


def test_sarif_and_github_paths(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"roles/docker/files/override.conf": OVERRIDE, ".git/HEAD": ""})
    monkeypatch.chdir(tmp_path / "roles")
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    run, = call("lint", "docker", "--format", "sarif").json["runs"]
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == {
        "uri": "roles/docker/files/override.conf", "uriBaseId": "%SRCROOT%"}
    assert "file=roles/docker/files/override.conf,line=3,col=40," in call("lint", "docker", "--format", "github").out


def test_a_comment_in_a_file(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"override.conf": OVERRIDE.replace(
        "ExecStart=/", "# dockerd-guard: ignore=DG103 lab\nExecStart=/")})
    monkeypatch.chdir(tmp_path)
    said = call("lint", "override.conf")
    assert (said.code, said.out) == (0, "no other findings; 1 ignored by comments\n")


def test_yaml_that_is_not_utf8(tmp_path: Path, call: Call) -> None:
    (tmp_path / "user-data").write_bytes(b"#cloud-config\n#\xff\nwrite_files: []\n")
    said = call("lint", tmp_path / "user-data")
    assert said.code == 2 and "user-data:2: not read: not UTF-8" in said.err


@pytest.mark.parametrize("name", ["daemon.json.j2", "override.conf.j2", "user-data", "compose.yaml", "config.ign"])
@pytest.mark.parametrize("text", [
    "{{" * 400_000, "{{ a }}" * 120_000, "{% if a %}" * 80_000, "[" * 900_000, "#cloud-config\n" + "- [" * 200_000,
    "services:\n" + " a:\n" * 100_000, "\0" * 900_000, '"hosts":' * 100_000, "&a [" * 200_000, "{" + '"a":' * 200_000,
    "[Service]\n" + "EnvironmentFile=/opt/a\n" * 30_000,
    "[Service]\n" + "".join(f"EnvironmentFile=/opt/a{number}\n" for number in range(20_000)),
    "write_files:\n" + "- {path: /etc/docker/daemon.json, content: x}\n" * 15_000,
], ids=lambda text: text[:12].strip())
def test_hostile_files_end_soon(
    name: str, text: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {name: text})
    monkeypatch.chdir(tmp_path)
    def work() -> None:
        said = call("lint", name, "--format", "json")
        assert said.code in (1, 2) and "Traceback" not in said.err

    check_cpu_time(work, 10)


def test_a_message_names_a_file_below_a_directory_once(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
                                                       ) -> None:
    file = tmp_path / "overlay/etc/docker/daemon.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"hosts": ["tcp://127.0.0.1:2375"]}')
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".")
    assert "by hosts in overlay/etc/docker/daemon.json:1:3; dockerd" in " ".join(said.out.split())


def test_a_virtual_environment_is_passed_over_whatever_its_name(
        tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "daemon.json").write_text("{}")
    package = tmp_path / "ci-env/lib/python3/site-packages/dockerd_guard"
    package.mkdir(parents=True)
    (package / "override.conf").write_text("[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n")
    monkeypatch.chdir(tmp_path)
    assert call("lint", ".").code == 1
    (tmp_path / "ci-env/pyvenv.cfg").touch()
    assert call("lint", ".").code == 0


def test_a_name_for_standard_input_needs_standard_input(call: Call) -> None:
    said = call("lint", "--stdin-filename", "docker.socket")
    assert (said.code, said.out) == (2, "")
    assert "--stdin-filename names standard input, which is read for the argument -" in said.err


def test_a_file_of_containerd(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"etc/containerd/config.toml": 'version = 2\n[grpc]\n  tcp_address = "0.0.0.0:1234"\n',
                     "roles/containerd/templates/config.toml.j2": '[grpc]\ntcp_address = "[::]:{{ port }}"\n',
                     "other/config.toml": '[grpc]\ntcp_address = "0.0.0.0:1"\n'})
    said = call("lint", ".")
    assert said.code == 1 and said.out.count("DG110") == 2, said.out + said.err
    assert "etc/containerd/config.toml:3:3: error" in said.out and "config.toml.j2:2:1: error" in said.out
    assert call("lint", "other/config.toml").code == 1
    (tmp_path / "etc/containerd/config.toml").write_text('[grpc]\naddress = "/run/containerd/containerd.sock"\n')
    said = call("lint", "etc")
    assert (said.code, said.out) == (2, "")


def test_services_without_the_socket_are_named(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"compose.yaml": "services:\n  web:\n    ports: ['80:80']\n", "daemon.json": "{}"})
    why = "no service of compose.yaml mounts the API socket"
    assert call("lint", "compose.yaml").err == f"dockerd-guard: {why}: there is nothing to judge\n"
    assert call("lint", "compose.yaml", "--format", "json").json["error"] == f"{why}: there is nothing to judge"
    assert f"dockerd-guard: {why}\n" in call("lint", "compose.yaml", "daemon.json").err
