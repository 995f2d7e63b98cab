"""`lint` of files that define containers and are not evaluated: they are named, and are no all-clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time

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


def task(module: str, *lines: str) -> str:
    return "\n      ".join((f"- hosts: all\n  tasks:\n  - name: a\n    {module}:", "image: x", *lines)) + "\n"


VOLUMES = f"volumes: ['{SOCKET}:/s']"


def pod(volume: str, *lines: str) -> str:
    before = ("kind: Pod\nspec:", "containers:", "- image: x")
    return "\n  ".join((*before, *lines, "volumes:", "- name: s", volume)) + "\n"


NOT_READ: dict[str, tuple[str, str, int]] = {
    "Ansible: ports": ("a.yml", task("community.docker.docker_container", "ports:", "- 80:80", VOLUMES), 8),
    "Ansible: all ports": ("a.yml", task("docker_container", VOLUMES, "publish_all_ports: yes"), 6),
    "Ansible: a variable": ("a.yml", task(
        "docker_container", 'ports: "{{ ports }}"', 'volumes: ["{{ socket }}:/var/run/docker.sock"]'), 7),
    "Ansible: a network": ("a.yaml.j2", task("docker_container", VOLUMES, "networks:", "- name: host"), 6),
    "Ansible: Podman": ("a.yml", task(
        "containers.podman.podman_container", "publish: ['80:80']", "volume:", "- /run/podman/podman.sock:/s"), 8),
    "Ansible: Swarm": ("a.yml", task(
        "docker_swarm_service", "publish:", "- published_port: 80", "mounts:", f"- source: {SOCKET}"), 9),
    "Ansible: a directory": ("a.yml", task("docker_container", "ports: [80]", "volumes:", "- /run:/host/run"), 8),
    "Hiera": (
        "a.yaml", f"docker::run_instance::instance:\n  a:\n    image: x\n    ports: 80:80\n    {VOLUMES}\n", 5),
    "CloudFormation": (
        "a.yaml", f"T:\n  Properties:\n    Volumes:\n    - Host:\n        SourcePath: {SOCKET}\n    Containers:\n"
        "    - Image: x\n      PortMappings:\n      - HostPort: 80\n", 5),
    "Compose: more lines than are read": (
        "stack.yml", "services:\n  a:\n    image: x\n    ports: [80]\n    volumes:\n    - /run/podman/podman.sock:/s"
        + "\n# a" * 5_000, 6),
    "Kubernetes: another key first": (
        "a.yaml", pod(f"  hostPath:\n      type: Socket\n      path: {SOCKET}", "hostNetwork: true"), 10),
    "Kubernetes: a Service in another file": (
        "a.yaml", pod(f"  hostPath: {{path: {SOCKET}}}", "  ports: [{containerPort: 80}]"), 8),
    "Kubernetes: a directory": (
        "a.yaml", pod("  hostPath: {path: /var/run}", "  args: [docker]", "hostNetwork: true"), 9),
    "Kubernetes: a directory, and no word of Docker": (
        "a.yaml", pod("  hostPath:\n      path: /run", "hostNetwork: true"), 9),
    "Kubernetes: a network of a value": (
        "a.yaml.gotmpl", pod(f"  hostPath: {{path: {SOCKET}}}", "hostNetwork: {{ .Values.hostNetwork }}"), 8),
    "Kubernetes: a port of a value": (
        "a.yaml", pod(f"  hostPath: {{path: {SOCKET}}}", "hostPort: {{ .Values.port }}"), 8),
    "k3d": ("k3d.yaml", f"kind: Simple\nports: [{{port: 80:80}}]\nvolumes:\n- volume: {SOCKET}:/s\n", 4),
    "kind": ("kind.yaml", "kind: Cluster\nnodes:\n- extraPortMappings:\n  - containerPort: 80\n  extraMounts:\n"
             f"  - hostPath: {SOCKET}\n    containerPath: /s\n", 6),
    "Python: variables": (
        "a.py", f"S = '{SOCKET}'\nports = ['80:80']\ncontainers.run('x', ports=ports, volumes=[S])\n", 1),
    "Python: one mapping": ("a.py", f"OPTIONS = dict(\n  volumes=['{SOCKET}:/s'], ports={{80: 80}})\n", 2),
    "a script with a NUL": ("docker.sh", "#!/bin/sh\n# \0\ndockerd -H tcp://0.0.0.0:2375\n", 3),
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
    "Python: a client": ("a.py", f"import docker\nS = '{SOCKET}'\nports = ['a', 'b']\ncontainers.list(S)\n"),
    "Ansible: no port": ("a.yml", task("docker_container", VOLUMES, "ports: []", "networks: [{name: a}]")),
    "Ansible: a port of another container": (
        "a.yml", task("docker_container", VOLUMES) + task("docker_container", "ports: [80]")),
    "Ansible: a client": ("a.yml", task("docker_container", f"docker_host: unix://{SOCKET}", "ports: [80]")),
    "Kubernetes: a port of another pod": (
        "a.yaml", pod(f"  hostPath: {{path: {SOCKET}}}") + "---\n"
        + pod("  emptyDir: {}", "  ports: [{containerPort: 80}]")),
    "Kubernetes: a directory and an image of docker.io": (
        "a.yaml", pod("  hostPath: {path: /}", "hostNetwork: true").replace("x", "docker.io/x")),
    "Kubernetes: the root directory, and no word of Docker": (
        "a.yaml", pod("  hostPath: {path: /}", "hostNetwork: true")),
    "Kubernetes: another network of a value": (
        "a.yaml", pod(f"  hostPath: {{path: {SOCKET}}}", "hostNetwork: false # {{ x }}")),
    "k3d: a port of another cluster": (
        "k3d.yaml", f"volumes: [{{volume: {SOCKET}:/s}}]\n---\nports: [{{port: 80:80}}]\n"),
    "GitHub Actions: a script beside a service": (
        "a.yml", "jobs:\n  a:\n    services: {b: {image: x, ports: [80]}}\n    steps:\n"
                 f"    - run: docker run -v {SOCKET}:/s x\n    - run: ls {SOCKET}\n"),
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
    '"-p" ', "docker /var/run/docker.sock ports ", "docker -/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "[{(",
    "- image: [/docker.sock:/x]\n", "hostPath: /docker.sock\n", f"hostPath:\n{' ' * 80}",
    "a:\n a:\n  image: /run:/x\n"])
@pytest.mark.parametrize("path", ["a.nix", "a.tf", "a.json", "a.py", "a.yml"])
def test_long_files_end_soon(text: str, path: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, path, "docker /docker.sock {\n" + (text * 600_000)[:(1 << 20) - 100])
    def work() -> None:
        assert call("lint", tmp_path).code in (0, 2)

    check_cpu_time(work, 2)
