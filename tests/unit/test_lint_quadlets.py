"""`lint`: containers that systemd runs from files of Podman, with the drop-ins and specifiers that apply to them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.command_line import Call

pytest_plugins = ["tests.support.fixtures"]

SOCKET = "[Container]\nVolume=/run/podman/podman.sock:/s\n"
PORT = "[Container]\nPublishPort=90:90\n"
KUBE = "[Kube]\nYaml=p.yml\nPublishPort=90:90\n"
NO_PORT = "[Container]\nPublishPort=\n"


class Case(NamedTuple):
    """Files below etc/containers/systemd, and where DG108 is."""

    files: dict[str, str]
    found: str = ""


CASES = {
    "all containers": Case({"a.container": SOCKET, "container.d/n.conf": "[Container]\nNetwork=host\n"},
                           "container.d/n.conf:2:9"),
    "all containers: the socket": Case({"a.container": PORT, "container.d/s.conf": SOCKET}, "a.container:2:13"),
    "all pods": Case({"a.container": f"{SOCKET}Pod=p.pod\n", "p.pod": "[Pod]\n",
                      "pod.d/p.conf": "[Pod]\nPublishPort=90:90\n"}, "pod.d/p.conf:2:13"),
    "all volumes": Case({"a.container": f"{PORT}Volume=v.volume:/s\n", "v.volume": "[Volume]\n", "volume.d/d.conf":
                         "[Volume]\nDevice=/run/docker.sock\nOptions=bind\n"}, "a.container:2:13"),
    "a prefix": Case({"foo-bar.container": SOCKET, "foo-.container.d/p.conf": PORT}, "foo-.container.d/p.conf:2:13"),
    "the first of two prefixes": Case({"foo-bar-baz.container": SOCKET, "foo-.container.d/p.conf": PORT},
                                      "foo-.container.d/p.conf:2:13"),
    "a template": Case({"a@b.container": SOCKET, "a@.container.d/p.conf": PORT}, "a@.container.d/p.conf:2:13"),
    "its own": Case({"a.container": SOCKET, "a.container.d/p.conf": PORT}, "a.container.d/p.conf:2:13"),
    "another prefix": Case({"foo-bar.container": SOCKET, "fo-.container.d/p.conf": PORT}),
    "another type": Case({"a.container": SOCKET, "pod.d/p.conf": "[Pod]\nPublishPort=90:90\n"}),
    "a more specific one of the same name": Case(
        {"a.container": SOCKET, "container.d/p.conf": PORT, "a.container.d/p.conf": "[Container]\n"}),
    "a later one resets": Case({"a.container": SOCKET, "a.container.d/1.conf": PORT, "container.d/2.conf": NO_PORT}),
    "an earlier one resets": Case({"a.container": SOCKET, "a.container.d/2.conf": PORT, "container.d/1.conf": NO_PORT},
                                  "a.container.d/2.conf:2:13"),
    **{f"a .kube: {pod}": Case({"p.kube": KUBE, "p.yml": pod}, "p.kube:3:13") for pod in (
        "hostPath: {path: /run/podman/podman.sock}\n", "hostPath:\n  path: /var/run\n",
        "hostPath:\n  type: Directory\n  path: '/'\n", '{"hostPath": {"type": "Directory", "path": "/run/podman"}}\n')},
    "a .kube: a drop-in": Case({"p.kube": "[Kube]\nYaml=p.yml\n", "p.yml": "hostPath:\n  path: /run\n",
                                "kube.d/p.conf": "[Kube]\nPublishPort=90:90\n"}, "kube.d/p.conf:2:13"),
    "a .kube: the host's network": Case({"p.kube": "[Kube]\nYaml=p.yml\nNetwork=host\n",
                                         "p.yml": "hostPath:\n  path: /run\n"}, "p.kube:3:9"),
    "a specifier": Case({"a.container": f"{PORT}Volume=%t/podman:/h\n"}, "a.container:2:13"),
    "a specifier: the socket": Case({"a.container": f"{PORT}Mount=type=bind,source=%t,target=/h\n"},
                                    "a.container:2:13"),
    "a specifier: another directory": Case({"a.container": f"{SOCKET}Volume=%t/x:/h\n"}),
}


@pytest.mark.parametrize("is_root", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_what_applies_to_a_container(
    name: str, is_root: bool, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(CASES[name].files)
    said = call("lint", *(["--root"] if is_root else []), ".")
    found = CASES[name].found
    assert said.code == bool(found), said.out + said.err
    path = f"{'/' if is_root else ''}etc/containers/systemd/{found}: error: the container "
    assert said.out.startswith(path if found else "nothing wrong\n"), said.out
    assert "the container container" not in said.out and "the container pod " not in said.out


@pytest.mark.parametrize(("pod", "said"), [
    ("hostPath:\n  path: /srv\n# docker.sock\nlivenessProbe: {httpGet: {path: /}}\n", "no service of p.kube mounts"),
    (None, "p.kube publishes a port, and whether a mount of p.yml is the API socket is not known"),
])
def test_pods_without_the_socket(
    pod: str | None, said: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write({"p.kube": KUBE} | ({"p.yml": pod} if pod is not None else {}))
    monkeypatch.chdir("etc/containers/systemd")
    found = call("lint", "p.kube")
    assert found.code == 2 and said in found.err and not found.out.startswith("p.kube"), found.out + found.err


def test_more_drop_ins_than_are_read(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write({"a.container": SOCKET} | {f"container.d/{number}.conf": NO_PORT for number in range(101)})
    said = call("lint", ".")
    assert said.code == 2 and "a.container: extends more than 20 services" in said.err, said.err


def test_many_containers_with_drop_ins(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write({f"{'a-' * 100}{number}.container": SOCKET for number in range(500)}
          | {f"container.d/{number}.conf": PORT for number in range(100)})
    begin = time.process_time()
    assert call("lint", ".").code == 1
    assert time.process_time() - begin < 10


def write(files: dict[str, str]) -> None:
    for path, text in files.items():
        file = Path("etc/containers/systemd", path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
