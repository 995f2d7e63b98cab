"""`lint` of files within files: ConfigMaps and Secrets of Kubernetes; Compose files and containers of Podman."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from textwrap import indent

import pytest

from tests.support.command_line import Call

pytest_plugins = ["tests.support.fixtures"]

HOSTS = '{"hosts": ["tcp://0.0.0.0:2375"]}'
DROP_IN = "# docker\n[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n"
COMPOSE = "services:\n  a:\n    image: x\n    volumes: ['/run/docker.sock:/s']\n    ports: ['80:80']\n"
QUADLET = "[Container]\nVolume=/run/podman/podman.sock:/s\nPublishPort=80:80\n"
WRITE = "#cloud-config\nwrite_files:\n- path: "


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FOUND: dict[str, tuple[str, str, str]] = {
    "ConfigMap: binaryData": (
        "cm.yaml", f"kind: ConfigMap\nbinaryData:\n  daemon.json: {packed(HOSTS)}\n", "cm.yaml:3:16"),
    "ConfigMap: a drop-in of any name": (
        "cm.yaml", f"kind: ConfigMap\ndata:\n  tcp.conf: |\n{indent(DROP_IN, '    ')}", "cm.yaml:7:35"),
    "ConfigMap: JSON": (
        "docker.json", json.dumps({"kind": "ConfigMap", "data": {"daemon.json": HOSTS}}), "docker.json:1:48"),
    "Secret: stringData": ("s.yaml", f"kind: Secret\nstringData:\n  daemon.json: '{HOSTS}'\n", "s.yaml:3:17"),
    "Secret: in a list": (
        "s.yaml", f"kind: List\nitems:\n- kind: Secret\n  data:\n    daemon.json: {packed(HOSTS)}\n", "s.yaml:5:18"),
    "Compose in cloud-init": (
        "user-data", f"{WRITE}/opt/compose.yaml\n  content: |\n{indent(COMPOSE, '    ')}", "user-data:9:18"),
    "Compose in cloud-init, in base64": (
        "user-data", f"{WRITE}/opt/compose.yaml\n  encoding: b64\n  content: {packed(COMPOSE)}\n", "user-data:5:12"),
    "Compose in cloud-init, in two files": (
        "user-data", f"{WRITE}/opt/compose.yaml\n  content: '{{services: {{a: {{ports: [80]}}}}}}'\n"
        "- path: /opt/compose.override.yaml\n"
        "  content: '{services: {a: {volumes: [\"/run/docker.sock:/s\"]}}}'\n", "user-data:4:13"),
    "Compose in a ConfigMap": (
        "cm.yaml", f"kind: ConfigMap\ndata:\n  docker-compose.yml: |\n{indent(COMPOSE, '    ')}", "cm.yaml:8:18"),
    "Podman in Ignition": (
        "a.ign", json.dumps({"ignition": {"version": "3.4.0"}, "storage": {"files": [
            {"path": "/etc/containers/systemd/a.container",
             "contents": {"source": f"data:;base64,{packed(QUADLET)}"}}]}}, indent=1), "a.ign:10:17"),
    "Podman in Butane, with a volume": (
        "a.bu", "variant: fcos\nstorage:\n  files:\n  - path: /etc/containers/systemd/a.container\n    contents:\n"
        "      inline: |\n        [Container]\n        Volume=s.volume:/s\n        PublishPort=80:80\n"
        "  - path: /etc/containers/systemd/s.volume\n    contents:\n"
        "      inline: |\n        [Volume]\n        Device=/run\n        Options=bind\n", "a.bu:9:21"),
    "Ansible: a definition of Compose": (
        "tasks.yml", "- community.docker.docker_compose_v2:\n    project_name: a\n    definition:\n"
        f"{indent(COMPOSE, '      ')}", "tasks.yml:8:20"),
    "a CI system: services of a job": ("ci.yml", f"jobs:\n  b:\n{indent(COMPOSE, '    ')}", "ci.yml:7:18"),
}
"""Name and text of a file, and where DG103 or DG108 is."""

HARMLESS: dict[str, tuple[str, str]] = {
    "Secret: data that is no base64": ("s.yaml", "kind: Secret\ndata:\n  password: '{{ x }}'\n"),
    "ConfigMap: another program": (
        "c.yaml", "kind: ConfigMap\ndata:\n  a.conf: |\n    [Service]\n    ExecStart=/bin/a\n"),
    "ConfigMap: nothing": ("c.yaml", "kind: ConfigMap\ndata: {daemon.json: ''}\n"),
    "Compose in cloud-init, without the socket": (
        "user-data", f"{WRITE}/opt/compose.yaml\n  content: '{{services: {{a: {{ports: [80]}}}}}}'\n"),
    "services of another kind": ("k.yaml", "spec:\n  services:\n  - name: docker.sock\n    port: 80\n"),
    "services of a job without a port": (
        "ci.yml", "jobs:\n  b:\n    services:\n      a: {image: x, volumes: ['/run/docker.sock:/s']}\n"),
}
"""Name and text of a file."""


def write(directory: Path, path: str, text: str) -> None:
    (directory / path).write_text(text)
    (directory / "daemon.json").write_text("{}")


@pytest.mark.parametrize("name", FOUND)
def test_what_a_file_carries_is_judged(name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text, place = FOUND[name]
    write(tmp_path, path, text)
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".", "--format", "json")
    assert said.code == 1, said.out + said.err
    assert [f"{each['file']}:{each['line']}:{each['column']}" for each in said.json["findings"]
            if each["code"] in ("DG103", "DG108")] == [place], said.out


@pytest.mark.parametrize("name", HARMLESS)
def test_what_leads_nowhere_is_no_finding(name: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, *HARMLESS[name])
    said = call("lint", tmp_path)
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.out + said.err


def test_what_is_not_decoded_is_named(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "s.yaml", "kind: Secret\ndata:\n  daemon.json: '{{ hosts | b64encode }}'\n")
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".")
    assert said.code == 2 and "s.yaml:3: what daemon.json contains is not in this file, or not decoded" in said.err
