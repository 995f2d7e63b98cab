"""`lint --root`: trees of every layout. Exit code 0 only where a dockerd's configuration was found and judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Call
from tests.support.hosts import OVERRIDE, STOCK, Host, put

pytest_plugins = ["tests.support.fixtures"]

HOSTS = '{"hosts": ["tcp://0.0.0.0:2375"]}\n'
OPEN = "-H fd:// -H tcp://0.0.0.0:2375"
START = f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {OPEN}\n"
USER_UNIT = "[Service]\nExecStart=/usr/bin/dockerd-rootless.sh -H tcp://0.0.0.0:2375\n"
UNIT = f"[Service]\nExecStart=/usr/bin/dockerd {OPEN}\n"
SYSTEM = "/etc/systemd/system"

EXPOSED: dict[str, tuple[dict[str, str], int]] = {
    "daemon.json": ({"/etc/docker/daemon.json": HOSTS}, 1),
    "drop-in": ({f"{SYSTEM}/docker.service.d/override.conf": START}, 1),
    "drop-in below /run": ({"/run/systemd/system/docker.service.d/a.conf": START}, 1),
    "drop-in below /usr/lib": ({"/usr/lib/systemd/system/docker.service.d/a.conf": START}, 1),
    "drop-in and daemon.json": ({f"{SYSTEM}/docker.service.d/override.conf":
                                 "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd\n",
                                 "/etc/docker/daemon.json": HOSTS}, 1),
    "docker.socket": ({f"{SYSTEM}/docker.socket": "[Socket]\nListenStream=2375\n"}, 1),
    "drop-in of docker.socket": ({f"{SYSTEM}/docker.socket.d/tcp.conf": "[Socket]\nListenStream=2375\n"}, 1),
    "another socket unit": ({f"{SYSTEM}/docker-tcp.socket":
                             "[Socket]\nListenStream=2375\nService=docker.service\n"}, 1),
    "Debian's environment file": ({"/etc/default/docker": f'DOCKER_OPTS="{OPEN.removeprefix("-H fd:// ")}"\n'}, 1),
    "Fedora's environment file": ({"/etc/sysconfig/docker": "OPTIONS='-H tcp://0.0.0.0:2375'\n"}, 1),
    "Fedora's network file": ({"/etc/sysconfig/docker-network":
                               "DOCKER_NETWORK_OPTIONS='-H tcp://0.0.0.0:2375'\n"}, 1),
    "OpenRC": ({"/etc/conf.d/docker": 'DOCKER_OPTS="-H tcp://0.0.0.0:2375"\n', "/etc/init.d/docker": "dockerd\n"}, 1),
    "user unit": ({"/home/alice/.config/systemd/user/docker.service": USER_UNIT}, 1),
    "drop-in of a user unit": ({"/home/alice/.config/systemd/user/docker.service.d/a.conf":
                                f"[Service]\nExecStart=\n{USER_UNIT.partition(chr(10))[2]}"}, 1),
    "user unit for every account": ({"/etc/systemd/user/docker.service": USER_UNIT}, 1),
    "daemon.json of an account": ({"/home/bob/.config/docker/daemon.json": HOSTS}, 1),
    "rootless beside a stock host": ({**STOCK, "/home/bob/.config/docker/daemon.json": HOSTS}, 1),
    "snap": ({"/var/snap/docker/2963/config/daemon.json": HOSTS}, 1),
    "snap beside a stock host": ({**STOCK, "/var/snap/docker/2963/config/daemon.json": HOSTS}, 1),
    "Docker Desktop": ({"/root/.docker/daemon.json": HOSTS}, 1),
    "Windows": ({"/ProgramData/docker/config/daemon.json": HOSTS}, 1),
    "a unit of another name": ({f"{SYSTEM}/my-docker.service": UNIT}, 1),
    "split /usr": ({"/lib/systemd/system/docker.service": UNIT}, 1),
    "docker.service in /usr/local": ({"/usr/local/lib/systemd/system/docker.service": UNIT}, 1),
    "a wrapper that is not there": ({f"{SYSTEM}/docker.service":
                                     "[Service]\nExecStart=/opt/start-docker\n"}, 2),
    "a wrapper in the tree": ({f"{SYSTEM}/docker.service": "[Service]\nExecStart=/opt/start-docker\n",
                               "/opt/start-docker": f"#!/bin/sh\nexec /usr/bin/dockerd {OPEN}\n"}, 1),
    "variables of the manager": ({f"{SYSTEM}/docker.service":
                                  "[Service]\nExecStartPre=/bin/systemctl set-environment O='-H tcp://0.0.0.0:2375'\n"
                                  "ExecStart=/usr/bin/dockerd $O\n"}, 2),
    "SysV script": ({"/etc/init.d/docker": f"#!/bin/sh\ndockerd {OPEN} &\n"}, 2),
    "Upstart": ({"/etc/init/docker.conf": f"exec dockerd {OPEN}\n"}, 2),
    "runit": ({"/etc/sv/docker/run": f"#!/bin/sh\nexec dockerd {OPEN}\n"}, 2),
    "supervisor": ({"/etc/supervisor/conf.d/docker.conf": f"[program:docker]\ncommand=dockerd {OPEN}\n"}, 2),
    "boot2docker": ({"/var/lib/boot2docker/profile": "EXTRA_ARGS='-H tcp://0.0.0.0:2375'\n"}, 2),
    "WSL beside a stock host": ({**STOCK, "/etc/wsl.conf": f"[boot]\ncommand=dockerd {OPEN}\n"}, 2),
    "a generator beside a stock host": (
        {**STOCK, "/etc/systemd/system-generators/x": f"echo 'ExecStart=dockerd {OPEN}' > $1/docker.service\n"}, 2),
    "cron beside a stock host": ({**STOCK, "/etc/cron.d/x": f"@reboot root dockerd {OPEN}\n"}, 2),
    "an init script beside a stock host": ({**STOCK, "/etc/init.d/api": f"#!/bin/sh\ndockerd {OPEN} &\n"}, 2),
    "cloud-init beside a stock host": (
        {**STOCK, "/var/lib/cloud/seed/nocloud/user-data": f"#cloud-config\nruncmd: ['dockerd {OPEN}']\n"}, 2),
    "an ostree image": ({"/usr/etc/docker/daemon.json": HOSTS}, 2),
    "an ostree image with a stock unit": (
        {**STOCK, "/usr/etc/systemd/system/docker.service.d/a.conf": START}, 2),
    "what new accounts get": ({**STOCK, "/etc/skel/.config/docker/daemon.json": HOSTS}, 1),
    "a home directory elsewhere": (
        {**STOCK, "/etc/passwd": "root:x:0:0::/root:/bin/sh\nci:x:998:998:CI:/var/lib/ci:/bin/sh\n",
         "/var/lib/ci/.config/docker/daemon.json": HOSTS}, 1),
    "rc.local beside a stock host": ({**STOCK, "/etc/rc.local": f"dockerd {OPEN} &\n"}, 2),
}
"""Files of a tree that opens a port, and the exit code. 2 where the files do not show what is opened."""

SAFE: dict[str, dict[str, str]] = {
    "stock": STOCK,
    "daemon.json": {"/etc/docker/daemon.json": '{"log-level": "warn"}\n'},
    "stock with the init script of the package": {
        **STOCK, "/etc/init.d/docker": "#!/bin/sh\nDOCKERD=/usr/bin/dockerd\n$DOCKERD $DOCKER_OPTS\n",
        "/etc/cron.d/prune": "DOCKER_HOST=tcp://10.0.0.5:2376\n@daily root docker system prune -f\n"},
    "drop-in": {OVERRIDE: "[Service]\nEnvironment=HTTP_PROXY=http://proxy:3128\n"},
    "docker.socket": {f"{SYSTEM}/docker.socket": STOCK["/usr/lib/systemd/system/docker.socket"]},
    "environment file": {"/etc/default/docker": "#DOCKER_OPTS=\n"},
    "user unit": {"/home/alice/.config/systemd/user/docker.service":
                  "[Service]\nExecStart=/usr/bin/dockerd-rootless.sh\n"},
    "snap": {"/var/snap/docker/2963/config/daemon.json": "{}\n"},
}

NOTHING: dict[str, dict[str, str]] = {
    "empty": {},
    "another service": {f"{SYSTEM}/nginx.service": "[Service]\nExecStart=/usr/sbin/nginx\n"},
    "certificates of registries": {"/etc/docker/certs.d/registry/ca.crt": "x"},
    "an init script of another service": {"/etc/init.d/ssh": "sshd\n", "/etc/rc.local": "exit 0\n"},
    "a tree inside": {"/srv/image/etc/docker/daemon.json": HOSTS},
    "a policy": {"/etc/dockerd-guard/config.yaml": "version: 1\nsockets: [fd://]\n"},
}


def tree(root: Path, files: dict[str, str]) -> Path:
    root.chmod(0o755)
    for path, text in files.items():
        put(root, path, text.encode(), 0o755 if text.startswith("#!") else 0o644)
    for path_ in root.rglob("*"):
        if path_.is_dir():
            path_.chmod(0o755)
    return root


@pytest.mark.parametrize("name", EXPOSED)
def test_no_exposed_tree_is_green(name: str, tmp_path: Path, call: Call) -> None:
    files, code = EXPOSED[name]
    said = call("lint", "--root", tree(tmp_path, files))
    assert said.code == code, said.out + said.err
    assert "nothing wrong\n" not in said.out
    if code == 1:
        assert "2375" in said.out, said.out
    assert call("lint", "--root", tmp_path, "--format", "json").code == code


@pytest.mark.parametrize("name", SAFE)
def test_a_safe_tree_is_green(name: str, tmp_path: Path, call: Call) -> None:
    said = call("lint", "--root", tree(tmp_path, SAFE[name]))
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.out + said.err
    if "/usr/lib/systemd/system/docker.service" not in SAFE[name]:
        assert ": judged " in said.err


@pytest.mark.parametrize("name", NOTHING)
def test_a_tree_without_docker_is_no_answer(name: str, tmp_path: Path, call: Call) -> None:
    root = tree(tmp_path, NOTHING[name])
    said = call("lint", "--root", root)
    assert (said.code, said.out) == (2, "")
    assert "no configuration of dockerd found" in said.err
    said = call("lint", "--root", root, "--format", "json")
    assert said.code == 2 and said.json["error"].startswith("no configuration of dockerd found")
    said = call("lint", "--root", root, "--format", "sarif")
    invocation, = said.json["runs"][0]["invocations"]
    assert (said.code, invocation["executionSuccessful"]) == (2, False)
    assert invocation["toolExecutionNotifications"][-1]["level"] == "error"
    said = call("lint", "--root", root, "--format", "github")
    assert said.code == 2 and "::error title=dockerd-guard::no configuration" in said.out


def test_a_note_is_in_every_format(tmp_path: Path, call: Call) -> None:
    root = tree(tmp_path, EXPOSED["daemon.json"][0])
    note = "/etc/docker/daemon.json without docker.service: judged with the stock unit of docker-ce"
    assert note in call("lint", "--root", root).err
    assert note in call("lint", "--root", root, "--format", "json").json["notes"]
    assert f"::notice title=dockerd-guard::{note}\n" in call("lint", "--root", root, "--format", "github").out
    invocation, = call("lint", "--root", root, "--format", "sarif").json["runs"][0]["invocations"]
    assert {"level": "note", "message": {"text": note}} in invocation["toolExecutionNotifications"]


def test_a_tree_does_not_waive_itself(stock_host: Host, call: Call) -> None:
    stock_host.start(OPEN)
    stock_host.put("/etc/dockerd-guard/config.yaml",
                   "version: 1\nsockets: [fd://, {address: 'tcp://0.0.0.0:2375', tls: none}]\n"
                   "waive: [{rule: DG103, reason: mine}]\n")
    said = call("lint", "--root", stock_host.root)
    assert said.code == 1 and "[DG103]" in said.out
    assert "config.yaml below" in said.err and "is not used" in said.err
    policy = stock_host.root / "etc/dockerd-guard/config.yaml"
    assert call("lint", "--root", stock_host.root, "--policy", policy).code == 0
    assert call("diff", "--root", stock_host.root).code == 2
