"""`lint` of files that define containers and are not evaluated: they are named, and are no all-clear."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.command_line import Call

pytest_plugins = ["tests.support.fixtures"]

SOCKET = "/var/run/docker.sock"
VOLUME = f'"{SOCKET}:/s"'
DEV = ".devcontainer/devcontainer.json"
MOUNTS = f'"mounts": [\n"source={SOCKET},target=/s,type=bind"]'
CONTAINER = "virtualisation.oci-containers.containers"


def terraform(*lines: str) -> str:
    return "\n".join(('resource "docker_container" "a" {', "  image = docker_image.a.image_id", *lines, "}", ""))


TF_MOUNT = f'  volumes {{\n    host_path = "{SOCKET}"\n    container_path = "/s"\n  }}'
TF_PORTS = "  ports {\n    internal = 80\n    external = 8080\n  }"


def nomad(group: str, task: str) -> str:
    return (f'job "a" {{\n  group "g" {{\n    {group}\n    task "t" {{\n      driver = "docker"\n      config {{\n'
            f'        image = "x"\n        {task}\n        volumes = [{VOLUME}]\n      }}\n    }}\n  }}\n}}\n')


NOT_READ: dict[str, tuple[str, str, int]] = {
    "devcontainer: appPort": (DEV, f'{{"image": "x", {MOUNTS}, "appPort": [8080]}}', 2),
    "devcontainer: appPort, a number": (DEV, f'{{"appPort": 8080, {MOUNTS}}}', 2),
    "devcontainer: runArgs": (DEV, f'{{{MOUNTS}, "runArgs": ["-p", "80:80"]}}', 2),
    "devcontainer: runArgs, one word": (DEV, f'{{{MOUNTS}, "runArgs": ["--publish=80:80"]}}', 2),
    "devcontainer: the host's network": (DEV, f'{{"runArgs": ["--network=host",\n"-v", {VOLUME}]}}', 2),
    "devcontainer: the host's network, two words": (DEV, f'{{"runArgs": ["--net", "host",\n"-v", {VOLUME}]}}', 2),
    "Nomad": ("a.nomad", nomad('network { port "http" { static = 80 } }', 'ports = ["http"]'), 9),
    "Nomad: a directory": (
        "a.nomad.hcl", nomad('network { port "http" {} }', "").replace(VOLUME, '"/run:/s"'), 9),
    "Nomad: the host's network": ("a.hcl", nomad("", 'network_mode = "host"'), 9),
    "Terraform": ("a.tf", terraform(TF_PORTS, TF_MOUNT), 8),
    "Terraform: mounts": ("a.tf", terraform(
        TF_PORTS, f'  mounts {{\n    type = "bind"\n    source = "{SOCKET}"\n    target = "/s"\n  }}'), 9),
    "Terraform: all ports": ("a.tf", terraform("  publish_all_ports = true", TF_MOUNT), 5),
    "Terraform: a service": (
        "a.tf", 'resource "docker_service" "a" {\n  task_spec {\n    container_spec {\n      image = "x"\n'
        f"{TF_MOUNT}\n    }}\n  }}\n  endpoint_spec {{\n{TF_PORTS}\n  }}\n}}\n", 6),
    "NixOS: a container": (
        "a.nix", f'{{ {CONTAINER}.a = {{\n image = "x"; ports = [ "80:80" ];\n volumes = [ {VOLUME} ]; }}; }}', 3),
    "NixOS: options": (
        "a.nix", f'{{ {CONTAINER}.a = {{ image = "x"; volumes = [ {VOLUME} ];\n'
        'extraOptions = [ "--network=host" ]; }; }', 1),
    "NixOS: a port of docker.socket": (
        "a.nix", '{ virtualisation.docker.listenOptions = [ "/run/docker.sock" "2375" ]; }', 1),
    "NixOS: an address of docker.socket": (
        "a.nix", '{\n virtualisation.docker = {\n listenOptions = [ "0.0.0.0:4243" ]; }; }', 3),
    "NixOS: a unit": ("a.nix", '{ systemd.sockets.docker.listenStreams = [ "4243" ]; }', 1),
    "ECS": ("task.json", f'{{"volumes": [{{"host": {{"sourcePath": "{SOCKET}"}}}}],\n"containerDefinitions": [\n'
                         '{"image": "x", "portMappings": [{"containerPort": 80, "hostPort": 80}]}]}', 1),
    "Chef": ("a.rb", f"docker_container 'a' do\n  port '80:80'\n  volumes ['{SOCKET}:/s']\nend\n", 3),
    "Puppet": ("a.pp", f"docker::run {{ 'a':\n  ports => ['80:80'],\n  volumes => ['{SOCKET}:/s'],\n}}\n", 3),
    "Salt": (
        "a.sls", f"a:\n  docker_container.running:\n    - binds: {SOCKET}:/s\n    - port_bindings:\n      - 80:80\n",
        3),
    "Python": ("a.py", f'docker.containers.run("x", ports={{"80/tcp": 80}},\n  volumes=["{SOCKET}:/s"])\n', 2),
}
"""Name and text of a file, and the line that is named."""

HARMLESS: dict[str, tuple[str, str]] = {
    "devcontainer: ports of the editor": (
        DEV, f'{{{MOUNTS}, "forwardPorts": [80], "portsAttributes": {{"80": {{}}}}}}'),
    "devcontainer: another -p": (
        DEV, f'{{{MOUNTS}, "postCreateCommand": ["mkdir", "-p", "/x"], "onCreate": "mkdir -p 9"}}'),
    "devcontainer: no ports": (DEV, f'{{{MOUNTS}, "appPort": []}}'),
    "devcontainer: no socket": (DEV, '{"image": "docker", "appPort": [80]}'),
    "Nomad: no port": ("a.nomad", nomad("", "")),
    "Terraform: a port of another container": ("a.tf", terraform(TF_MOUNT) + terraform(TF_PORTS).replace('"a"', '"b"')),
    "Terraform: a provider": ("a.tf", f'provider "docker" {{ host = "unix://{SOCKET}" }}\n{terraform(TF_PORTS)}'),
    "NixOS: a port of another container": (
        "a.nix", f'{{ {CONTAINER} = {{ a = {{ image = "x"; volumes = [ {VOLUME} ]; }};\n'
        'b = { image = "y"; ports = [ "80:80" ]; }; }; }'),
    "NixOS: sockets": ("a.nix", '{ virtualisation.docker.listenOptions = [ "/run/docker.sock" "/run/d:1" ]; }'),
    "a client": ("traefik.toml", f'[providers.docker]\nendpoint = "unix://{SOCKET}"\n[x]\nports = [80]\n'),
    "a comment": ("a.tf", terraform(TF_PORTS, f"  # {SOCKET}")),
}
"""Name and text of a file."""


def write(directory: Path, path: str, text: str) -> None:
    (directory / path).parent.mkdir(exist_ok=True)
    (directory / path).write_text(text)
    (directory / "daemon.json").write_text("{}")


@pytest.mark.parametrize("name", NOT_READ)
def test_a_definition_is_named(name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text, line = NOT_READ[name]
    write(tmp_path, path, text)
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".")
    assert (said.code, said.out) == (2, "nothing wrong in what could be observed\n"), said.err
    assert f"dockerd-guard: {path}:{line}: " in said.err and "in a form that is not evaluated" in said.err, said.err


@pytest.mark.parametrize("name", HARMLESS)
def test_what_leads_nowhere_is_not_named(name: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, *HARMLESS[name])
    said = call("lint", tmp_path)
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.out + said.err


@pytest.mark.parametrize("text", [
    "{", "}/{", "{docker image /docker.sock ", "ports = [", "docker listenOptions = [ ",
    "image{ports = [1]/docker.sock}",
    '"-p" ', "docker /var/run/docker.sock ports ", "docker -/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"])
@pytest.mark.parametrize("path", ["a.nix", "a.tf", "a.json"])
def test_long_files_end_soon(text: str, path: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, path, "docker /docker.sock {\n" + (text * 600_000)[:(1 << 20) - 100])
    begin = time.process_time()
    assert call("lint", tmp_path).code in (0, 2)
    assert time.process_time() - begin < 2
