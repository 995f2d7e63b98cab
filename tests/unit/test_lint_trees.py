"""`lint --root`: trees of every layout. Exit code 0 only where a dockerd's configuration was found and judged."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from dockerd_guard.commands import _tree
from tests.support.command_line import Call
from tests.support.hosts import OVERRIDE, STOCK, Host, put
from tests.support.places import wrong_places

pytest_plugins = ["tests.support.fixtures"]

HOSTS = '{"hosts": ["tcp://0.0.0.0:2375"]}\n'
OPEN = "-H fd:// -H tcp://0.0.0.0:2375"
START = f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {OPEN}\n"
USER_UNIT = "[Service]\nExecStart=/usr/bin/dockerd-rootless.sh -H tcp://0.0.0.0:2375\n"
UNIT = f"[Service]\nExecStart=/usr/bin/dockerd {OPEN}\n"
SYSTEM = "/etc/systemd/system"
COMPOSE = "services:\n  a:\n    ports: ['2375:80']\n    volumes: ['/var/run/docker.sock:/var/run/docker.sock']\n"

OWN = {**STOCK, "/usr/lib/systemd/system/docker.service": (
    "[Service]\nEnvironmentFile=-/etc/default/opts\nExecStart=/usr/bin/dockerd -H fd:// $OPTS\n")}
"""A unit that reads a variable of its own."""

ENVIRONMENT = "OPTS=--host=0.0.0.0:2375\n"
SETS_OPTS = f"[Service]\nEnvironment={ENVIRONMENT}"


def written_by_cloud_init(path: str, text: str) -> dict[str, str]:
    return {"/var/lib/cloud/seed/nocloud/user-data": (
        f"#cloud-config\nwrite_files:\n- path: {path}\n  content: |\n" + textwrap.indent(text, "    "))}


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
    "Flatcar": ({"/etc/os-release": "NAME=x\nID=flatcar\n", f"{SYSTEM}/docker.service.d/a.conf":
                 '[Service]\nEnvironment="DOCKER_OPTS=-H tcp://0.0.0.0:2375"\n'}, 1),
    "Synology": ({"/var/packages/ContainerManager/etc/dockerd.json": HOSTS}, 1),
    "a script of a package's unit": (
        {**STOCK, "/usr/lib/systemd/system/dock.service": "[Service]\nExecStart=/usr/libexec/start -x\n",
         "/usr/libexec/start": f"#!/bin/sh\nexec dockerd {OPEN}\n"}, 2),
    "a command that writes the environment file": (
        {**OWN, f"{SYSTEM}/docker.service.d/a.conf":
         "[Service]\nExecStartPre=/bin/sh -c 'echo OPTS=-H=tcp://0.0.0.0:2375 > /etc/default/docker'\n"}, 2),
    "a variable of the manager": (
        {**STOCK, f"{SYSTEM}/docker.service.d/a.conf":
         "[Service]\nPassEnvironment=OPTS\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// $OPTS\n"}, 2),
    "WSL without systemd": ({**STOCK, "/root/.bashrc": f"pgrep dockerd || dockerd {OPEN} &\n"}, 2),
    "environment files of two packages": (
        {"/etc/default/docker": "DOCKER_OPTS=\n", "/etc/conf.d/docker": 'DOCKER_OPTS="-H tcp://0.0.0.0:2375"\n'}, 2),
    "Buildroot": ({"/etc/docker/daemon.json": "{}", "/etc/default/dockerd": f"DOCKERD_ARGS='{OPEN}'\n",
                   "/etc/init.d/S60dockerd": "#!/bin/sh\nstart-stop-daemon -S -x dockerd -- $DOCKERD_ARGS\n"}, 2),
    "OpenWrt": ({"/etc/docker/daemon.json": "{}",
                 "/etc/init.d/dockerd": "#!/bin/sh\ndockerd --config-file=/tmp/d\n"}, 2),
    "SUSE": ({"/etc/sysconfig/docker": 'DOCKER_OPTS="-H tcp://0.0.0.0:2375"\n'}, 1),
    "SUSE by its name": ({"/etc/os-release": "ID=opensuse-leap\n",
                          "/etc/sysconfig/docker": 'OPTIONS=\nDOCKER_OPTS="-H tcp://0.0.0.0:2375"\n'}, 1),
    "a configuration extension": ({**STOCK, "/usr/lib/confexts/x/etc/docker/daemon.json": HOSTS}, 1),
    "QNAP": ({"/share/CACHEDEV1_DATA/.qpkg/container-station/etc/docker.json": HOSTS}, 1),
    "daemon.json under OpenRC": ({"/etc/conf.d/docker": "DOCKER_OPTS=\n", "/etc/docker/daemon.json": HOSTS}, 1),
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
    "an ostree image": ({"/usr/etc/docker/daemon.json": HOSTS}, 1),
    "an ostree image with a stock unit": (
        {**STOCK, "/usr/etc/systemd/system/docker.service.d/a.conf": START}, 1),
    **{f"what {name} adds to the unit of the tree": ({**OWN, **files}, 1) for name, files in (
        ("cloud-init", written_by_cloud_init(f"{SYSTEM}/docker.service.d/a.conf", SETS_OPTS)),
        ("cloud-init by an environment file", written_by_cloud_init("/etc/default/opts", ENVIRONMENT)),
        ("a drop-in of an ostree image", {f"/usr{SYSTEM}/docker.service.d/a.conf": SETS_OPTS}),
    )},
    "what new accounts get": ({**STOCK, "/etc/skel/.config/docker/daemon.json": HOSTS}, 1),
    "a home directory elsewhere": (
        {**STOCK, "/etc/passwd": "root:x:0:0::/root:/bin/sh\nci:x:998:998:CI:/var/lib/ci:/bin/sh\n",
         "/var/lib/ci/.config/docker/daemon.json": HOSTS}, 1),
    "rc.local beside a stock host": ({**STOCK, "/etc/rc.local": f"dockerd {OPEN} &\n"}, 2),
    "a home directory of no account": (
        {**STOCK, "/srv/homes/x/.config/systemd/user/docker.service.d/a.conf":
         f"[Service]\nExecStart=\n{USER_UNIT.partition(chr(10))[2]}"}, 1),
    "a tree inside": ({**STOCK, "/srv/image/etc/docker/daemon.json": HOSTS}, 1),
    "Compose below /opt": ({**STOCK, "/opt/app/compose.yaml": COMPOSE}, 1),
    "Compose below /srv, and no Docker": ({"/srv/stacks/a/docker-compose.yml": COMPOSE}, 1),
    "Compose in a checkout": ({**STOCK, "/opt/app/.git/HEAD": "", "/opt/app/compose.yaml": COMPOSE}, 1),
    "Compose that does not name Docker": ({**STOCK, "/opt/app/stack.yml":
        "services:\n  a:\n    ports: ['2375:80']\n    volumes: ['/run:/h']\n"}, 1),
    "Compose with the root directory": ({**STOCK, "/opt/app/stack.yml":
        "services:\n  a:\n    ports: ['2375:80']\n    volumes:\n    - {type: bind, source: /, target: /h}\n"}, 1),
    "a large script": ({**STOCK, "/opt/a.sh": f"#!/bin/sh\ndockerd {OPEN}\n{'#' * (1 << 20)}\n"}, 2),
    "a link to the socket": ({**STOCK, "/opt/app/api": "-> /var/run/docker.sock", "/opt/app/stack.yml":
        "services:\n  a:\n    ports: ['2375:80']\n    volumes: ['./api:/x']\n"}, 2),
    "docker-in-docker below /opt": (
        {**STOCK, "/opt/ci/compose.yaml": "services:\n  d: {image: 'docker:dind', ports: ['12375:2375']}\n"}, 2),
    "a container of Podman with docker-in-docker": (
        {**STOCK, "/etc/containers/systemd/d.container": "[Container]\nImage=docker:dind\nPublishPort=2375\n"}, 2),
    "a container of Podman with the socket": ({**STOCK, "/etc/containers/systemd/d.container":
        "[Container]\nVolume=/run/podman/podman.sock:/x\nPublishPort=2375:80\n"}, 1),
    "a container of Podman of an account": ({**STOCK, "/home/a/.config/containers/systemd/d.container":
        "[Container]\nVolume=/run/docker.sock:/x\nPodmanArgs=--publish 2375:80\n"}, 1),
    "a container in a pod": ({
        "/usr/share/containers/systemd/d.container": "[Container]\nVolume=/run/docker.sock:/x\nPod=p.pod\n",
        "/usr/share/containers/systemd/p.pod": "[Pod]\nPublishPort=2375:80\n"}, 1),
    "Podman's API": ({**STOCK, f"{SYSTEM}/api.service":
        "[Service]\nExecStart=/usr/bin/podman system service --time=0 tcp:0.0.0.0:2375\n"}, 1),
    "Podman's API, and no Docker": ({f"{SYSTEM}/api.service":
        "[Service]\nExecStart=podman --log-level info system service tcp://:2375\n"}, 1),
    "Podman's API by its socket": ({
        "/usr/lib/systemd/system/podman.service": "[Service]\nExecStart=/usr/bin/podman $LOGGING system service\n",
        "/usr/lib/systemd/system/podman.socket": "[Socket]\nListenStream=%t/podman/podman.sock\n",
        f"{SYSTEM}/podman.socket.d/tcp.conf": "[Socket]\nListenStream=2375\n"}, 1),
    "a drop-in of Podman's socket": ({**STOCK, f"{SYSTEM}/podman.socket.d/tcp.conf":
        "[Socket]\nListenStream=4243\n"}, 2),
    "a unit that runs docker-in-docker": ({**STOCK, f"{SYSTEM}/docker-ci.service":
        "[Service]\nExecStart=/usr/bin/docker run -p 2375:2375 docker:dind\n"}, 2),
    "a unit that runs a container with the socket, and no Docker": (
        {"/etc/docker/daemon.json": "{}\n", f"{SYSTEM}/a.service":
         "[Service]\nExecStart=/usr/bin/docker run -v/run/docker.sock:/x -p2375:80 i\n"}, 2),
    "a unit of an account": ({**STOCK, "/home/a/.config/systemd/user/relay.service":
        "[Service]\nExecStart=/usr/bin/socat TCP-LISTEN:2375,fork UNIX-CONNECT:/run/user/1000/docker.sock\n"}, 1),
    "containerd, and no Docker": ({"/etc/containerd/config.toml": "[grpc]\ntcp_address = '0.0.0.0:2375'\n"}, 1),
    "a script below /opt": ({**STOCK, "/opt/ci/start.sh": f"#!/bin/sh\nexec dockerd {OPEN}\n"}, 2),
    "a script below /usr/local": ({**STOCK, "/usr/local/sbin/engine": f"#!/bin/sh\nexec dockerd {OPEN}\n"}, 2),
    "a script of a package that a unit runs": ({
        **STOCK, f"{SYSTEM}/engine.service": "[Service]\nExecStart=-/usr/bin/engine\n",
        "/usr/bin/engine": f"#!/bin/sh\nexec dockerd {OPEN}\n"}, 2),
    # A shell passes over it.
    "a script with a NUL": ({**STOCK, "/usr/local/bin/a.sh": f"#!/bin/sh\n# a\0b\ndockerd {OPEN}\n"}, 2),
    "a proxy": ({**STOCK, "/etc/nginx/conf.d/a.conf":
                 "server { listen 2375; location / { proxy_pass http://unix:/var/run/docker.sock:/; } }\n"}, 2),
    "a machine": ({**STOCK, "/var/lib/machines/a/etc/docker/daemon.json": HOSTS}, 1),
    "a system extension": ({**STOCK, "/var/lib/extensions/a/usr/lib/systemd/system/docker.service.d/a.conf": START}, 1),
    "tmpfiles.d": ({**STOCK, "/usr/lib/tmpfiles.d/d.conf": "C /etc/docker/daemon.json - - - - /usr/share/d\n"}, 2),
    "Compose that cannot be read": ({**STOCK, "/opt/a/compose.yaml": "services:\n  a: [\n  # docker.sock 2375\n"}, 2),
    "a static pod": ({**STOCK, "/etc/kubernetes/manifests/d.yaml":
                      "args: [dockerd, '--host=tcp://0.0.0.0:2375']\nimage: docker:dind\n"}, 2),
    "a link to where a package is": ({**STOCK, "/usr/share/app/compose.yaml": COMPOSE,
                                      "/opt/app/compose.yaml": "-> /usr/share/app/compose.yaml"}, 1),
}
"""Files of a tree that opens a port, and the exit code. 2 where the files do not show what is opened."""

SAFE: dict[str, dict[str, str]] = {
    "hosts that cloud-init adds to a unit without -H": {
        "/usr/lib/systemd/system/docker.service": "[Service]\nExecStart=/usr/bin/dockerd\n",
        **written_by_cloud_init("/etc/docker/daemon.json", '{"hosts": ["unix:///run/x.sock"]}')},
    "an environment file of cloud-init": {**OWN, **written_by_cloud_init("/etc/default/opts", "OPTS=--debug\n")},
    "stock": STOCK,
    "stock with the script of docker-ce": {
        **STOCK, "/etc/init.d/docker": "#!/bin/sh\nDOCKER_OPTS=\ndockerd $DOCKER_OPTS\n"},
    "copies and examples": {
        **STOCK, "/etc/docker/daemon.json.bak": HOSTS, f"{SYSTEM}/docker.service.d/a.conf.dockerd-guard-saved": START,
        "/opt/app/compose.yaml.example": COMPOSE, "/etc/default/docker.dpkg-old": 'DOCKER_OPTS="-H tcp://0.0.0.0"\n'},
    "what is not in effect": {
        **STOCK, "/usr/share/doc/docker/compose.yaml": COMPOSE, "/root/src/.git/HEAD": "",
        "/root/src/tests/override.conf": START, "/home/a/notes.txt": f"dockerd {OPEN}\n",
        "/opt/venv/pyvenv.cfg": "", "/opt/venv/lib/docker/compose.yaml": COMPOSE, "/tmp/compose.yaml": COMPOSE,
        "/home/a/.cache/compose.yaml": COMPOSE, "/var/lib/docker/overlay2/x/diff/etc/docker/daemon.json": HOSTS},
    "a large file of another program": {**STOCK, "/opt/a.conf": "# x\n" * 300_000},
    "Compose without the socket": {**STOCK, "/opt/app/compose.yaml": "services:\n  a: {ports: ['80:80']}\n"},
    "Podman as packaged": {
        **STOCK, "/usr/lib/systemd/system/podman.service":
        "[Service]\nExecStart=/usr/bin/podman $LOGGING system service\n",
        "/usr/lib/systemd/system/podman.socket": "[Socket]\nListenStream=%t/podman/podman.sock\n",
        "/etc/containers/systemd/web.container": "[Container]\nImage=nginx\nPublishPort=80:80\n"},
    "services and clients": {
        **STOCK, "/etc/services": "docker 2375/tcp\ndocker-s 2376/tcp\n", f"{SYSTEM}/app.service":
        "[Service]\nEnvironment=DOCKER_HOST=tcp://10.0.0.5:2376\nExecStart=/usr/bin/docker run -p 80:80 nginx\n"},
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
    "a script of a package's unit": {
        **STOCK, "/usr/lib/systemd/system/dock.service": "[Service]\nExecStart=/usr/libexec/start\n",
        "/usr/libexec/start": "#!/bin/sh\nexec docker ps\n"},
    "a variable of the manager that no command uses": {
        **STOCK, f"{SYSTEM}/docker.service.d/a.conf": "[Service]\nPassEnvironment=OPTS\nExecStartPre=/bin/sync\n"},
    "a login shell": {**STOCK, "/root/.bashrc": "export DOCKER_HOST=tcp://10.0.0.5:2376\n"},
    "SUSE": {"/etc/sysconfig/docker": "DOCKER_OPTS=--debug\n",
             "/etc/docker/daemon.json": '{"hosts": ["unix:///var/run/docker.sock"]}'},
    "a configuration extension": {**STOCK, "/usr/lib/confexts/x/etc/docker/daemon.json": '{"live-restore": true}'},
    "environment files of two packages": {
        "/etc/default/docker": "DOCKER_OPTS=\n", "/etc/conf.d/docker": "DOCKER_OPTS=\n"},
    "hosts under OpenRC": {"/etc/conf.d/docker": "DOCKER_OPTS=\n",
                           "/etc/docker/daemon.json": '{"hosts": ["unix:///var/run/docker.sock"]}'},
}

NOTHING: dict[str, dict[str, str]] = {
    "empty": {},
    "an empty directory of drop-ins": {f"{SYSTEM}/docker.service.d/.keep": ""},
    "a copy of a drop-in": {f"{SYSTEM}/docker.service.d/a.conf.bak": START},
    "files beside daemon.json": {"/etc/docker/seccomp.json": "{}", "/etc/docker/daemon-prod.json": HOSTS},
    "another service": {f"{SYSTEM}/nginx.service": "[Service]\nExecStart=/usr/sbin/nginx\n"},
    "certificates of registries": {"/etc/docker/certs.d/registry/ca.crt": "x"},
    "an init script of another service": {"/etc/init.d/ssh": "sshd\n", "/etc/rc.local": "exit 0\n"},
    "Compose without the socket": {"/opt/app/compose.yaml": "services:\n  a: {ports: ['80:80']}\n"},
    "units that only have to do with Docker": {
        "/usr/lib/systemd/system/dockerd-guard.service": "[Service]\nExecStart=/usr/bin/dockerd-guard run\n",
        f"{SYSTEM}/docker-prune.service": "[Unit]\nAfter=docker.service\n[Service]\nExecStart=/usr/bin/docker prune\n"},
    "a policy": {"/etc/dockerd-guard/config.yaml": "version: 1\nsockets: [fd://]\n"},
}


def tree(root: Path, files: dict[str, str]) -> Path:
    root.chmod(0o755)
    for path, text in files.items():
        put(root, path, text.encode(), 0o755 if text.startswith("#!") else 0o644)
        if text.startswith("-> "):
            (root / path[1:]).unlink()
            (root / path[1:]).symlink_to(text[3:])
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
    assert list(wrong_places(said.out + said.err, tmp_path)) == []
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


@pytest.mark.parametrize(("version", "expected"), [
    ("28.0", ["DG109"]), ("29.4.1", ["DG109"]), ("29.5", ["DG103"]), ("", ["DG103", "DG109"]),
])
def test_a_host_inside_rootlesskit_is_not_reachable(
    version: str, expected: list[str], tmp_path: Path, call: Call
) -> None:
    tree(tmp_path, {"/etc/systemd/user/docker.service": USER_UNIT})
    words = ["--docker-version", version] if version else []
    said = call("lint", "--root", str(tmp_path), "--format", "json", *words)
    assert [finding["code"] for finding in said.json["findings"]] == expected
    assert ("before Docker 29.5" in said.out) is (not version)


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


def test_credentials_that_systemd_makes_are_not_missing(tmp_path: Path, call: Call) -> None:
    options = " ".join(f"--tls{name}=%d/{name}" for name in ("cacert", "cert", "key"))
    root = tree(tmp_path, {**STOCK, OVERRIDE: (
        "[Service]\nLoadCredential=cacert:/srv/ca.pem\nLoadCredentialEncrypted=key\nSetCredential=other:x\n"
        f"ExecStart=\nExecStart=/usr/bin/dockerd -H fd:// -H tcp://10.0.0.5:2376 --tlsverify {options}\n")})
    said = call("lint", "--root", root, "--select", "DG206")
    assert said.out.count("is missing") == 1 and "tlscert /run/credentials/docker.service/cert" in said.out, said.out


def test_what_is_not_looked_into_is_said(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, {**STOCK, "/srv/a/compose.yaml": COMPOSE, "/srv/b/c/compose.yaml": COMPOSE})
    monkeypatch.setattr(_tree, "MAX_NAMES", 8)
    said = call("lint", "--root", root)
    assert (said.code, said.out.count("DG108")) == (1, 1), said.out
    assert "/srv/b/c and other directories are not looked into for Compose files and scripts" in said.err
    monkeypatch.setattr(_tree, "MAX_NAMES", 20_000)
    monkeypatch.setattr(_tree, "MAX_BYTES", 10)
    assert "are not looked into" in call("lint", "--root", root).err


def test_a_waived_unit_is_not_named(tmp_path: Path, call: Call) -> None:
    root = tree(tmp_path, EXPOSED["Podman's API"][0])
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nsockets: [fd://]\nwaive: [{rule: DG107, reason: mine, unit: api.service}]\n")
    said = call("lint", "--root", root, "--policy", policy)
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.out + said.err


def test_what_is_waived_in_a_tree_stays_waived_with_user_data(tmp_path: Path, call: Call) -> None:
    (tmp_path / "root").mkdir()
    tree(tmp_path / "root", {**STOCK, f"{SYSTEM}/docker.service.d/a.conf": START,
                             **written_by_cloud_init("/etc/docker/daemon.json", '{"debug": true}')})
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nsockets: [fd://, {address: 'tcp://0.0.0.0:2375', tls: none}]\n"
                      "waive: [{rule: DG103, reason: lab}]\n")
    said = call("lint", "--root", tmp_path / "root", "--policy", policy)
    assert "DG103" not in said.out and "judged with docker.service of the tree" in said.err, said.out + said.err


def test_a_tree_does_not_lead_out_of_itself(tmp_path: Path, call: Call) -> None:
    (tmp_path / "root").mkdir()
    root = tree(tmp_path / "root", STOCK)
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (root / "opt").mkdir()
    (root / "opt/compose.yaml").symlink_to("../../compose.yaml")
    (root / "srv").symlink_to("..")
    assert call("lint", "--root", root).code == 0


def test_a_root_that_is_not_there_is_named_once(tmp_path: Path, call: Call) -> None:
    root, gone = tree(tmp_path, STOCK), tmp_path / "gone"
    for verb in ("lint", "sockets"):
        said = call(verb, "--root", gone, "--root", root)
        assert said.code == 2 and said.err.startswith(f"dockerd-guard: {gone}: No such file or directory\n"), said.err


def test_a_tree_is_not_asked_for_a_policy(tmp_path: Path, call: Call) -> None:
    assert call("lint", "--root", tree(tmp_path, STOCK)).err == ""


def test_sockets_of_a_tree_without_docker_service(tmp_path: Path, call: Call) -> None:
    root = tree(tmp_path, {"/etc/docker/daemon.json": HOSTS})
    said = call("sockets", "--root", root)
    assert "tcp://0.0.0.0:2375" in said.out and "/etc/docker/daemon.json:1" in said.out
    assert "judged with the stock unit of docker-ce" in said.err and "not found" not in said.err
    bindings = call("sockets", "--root", root, "--format", "json").json["layers"]["configured"]["bindings"]
    assert [(binding["address"], binding["file"]) for binding in bindings] == [
        ("unix:///run/docker.sock", None), ("tcp://0.0.0.0:2375", "/etc/docker/daemon.json")]
