"""`lint DIR`: files of other programs that have names or words of dockerd's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time

pytest_plugins = ["tests.support.fixtures"]

WRONG = 'DOCKER_OPTS="--rm -it"\n'
OPEN = 'DOCKER_OPTS="-H tcp://0.0.0.0:2375"\n'

DROP_IN = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H "

OTHERS: dict[str, tuple[str, str]] = {
    "a makefile": ("docker.mk", "DOCKER_OPTS=--rm -it -v $(PWD):/src\n"),
    "a Makefile": ("docker/Makefile", WRONG),
    "a Makefile with a flag that dockerd has": ("docker/Makefile", "DOCKER_OPTS=--debug\n"),
    "a Dockerfile": ("Dockerfile", "FROM x\nRUN set -e; \\\n  OPTIONS=\"--prefix=/usr\" && \\\n  ./configure\n"),
    "a Dockerfile in a directory of that name": ("molecule/default/Dockerfile.j2", f"FROM x\nENV A=b\n{WRONG}"),
    "the environment of a container": ("docker/app.env", "OPTIONS=--verbose\n"),
    "a script": ("docker/run", f"{WRONG}docker run $DOCKER_OPTS x\n"),
    "a script with flags of both": (
        "docker/run", 'DOCKER_OPTS="--debug"\nif true; then\n  docker $DOCKER_OPTS ps\nfi\n'),
    "a volume": ("docker/opts", 'DOCKER_OPTS="-v /src:/src"\n'),
    "a section of another program": ("docker/app.conf", "[service]\nname = docker\n[socket]\nlisten = 0.0.0.0:80\n"),
    "a command of another unit": ("a.conf", "[service]\nExecStart=/usr/bin/docker run x\n"),
    "the second line": ("docker/opts", "OPTIONS=\nDOCKER_OPTS=--name=x\n"),
    "a drop-in of another unit": ("podman.service.d/a.conf", "# for docker clients\n[Service]\nEnvironment=A=b\n"),
    "a translation": ("i18n/en/daemon.json", '{"title": "Daemon", "start": "Start"}'),
    "a name near daemon.json": ("demons.json", '{"title": "Demons", "count": 3}'),
    "a name near daemon.json, and no JSON": ("docker/deamon.jsn", "// none\n"),
    "a daemon of another program": ("etc/wings/daemon.json", '{"web": {"host": "0.0.0.0"}, "remote": "x"}'),
}
"""Name and text of a file that does not configure dockerd."""

DOCKERS: dict[str, tuple[str, str]] = {
    "Debian's": ("etc/default/docker", WRONG),
    "Fedora's": ("etc/sysconfig/docker-network", "DOCKER_NETWORK_OPTIONS=--rm\n"),
    "a role's": ("roles/docker/templates/docker.default.j2", OPEN),
    "a name": ("docker-opts", WRONG),
    "a name of no kind": ("docker/engine.env", f"# of dockerd\nA=b\n{OPEN}"),
    "a template": ("docker/x.env.j2", "{% if x %}\n" + OPEN + "{% endif %}\n"),
    "two lines": ("docker/x.env", 'DOCKER_OPTS="--debug \\\n  -H tcp://0.0.0.0:2375"\n'),
    "a key of dockerd": ("i18n/daemon.json", '{"title": "x", "hosts": ["tcp://0.0.0.0:2375"]}'),
    "a key that is misspelled": ("files/daemon.json", '{"log-levl": "warn"}'),
    "a directory of Docker": ("roles/docker/files/daemon.json", '{"title": "x"}'),
    "a unit for one distribution": (
        "contrib/init/systemd/docker.service.rpm",
        "[Unit]\nRequires=docker.socket\n[Service]\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n"),
    "a section that is misspelled": ("docker/opts.conf", "[service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd://\n"),
    "a section that is missing": ("override.conf", "ExecStart=\nExecStart=/usr/bin/docker daemon -H fd://\n"),
    "a socket whose section is misspelled": ("docker/tcp.conf", "[socket]\nListenStream=2375\n"),
    "a variant of daemon.json": ("files/daemon-prod.json", '{"hosts": ["tcp://0.0.0.0:2375"]}'),
    "a variant of a drop-in": ("docker.service.d/a.conf.rpm", f"{DROP_IN}tcp://0.0.0.0:2375\n"),
    "its place": ("etc/docker/daemon.json", '{"title": "x"}'),
}
"""Name and text of a file that does, and opens a port or is wrong."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The path of the directory has the word docker.
    monkeypatch.chdir(tmp_path)


def lint(call: Call, name: str, text: str) -> tuple[int, str]:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    said = call("lint", ".")
    return said.code, said.out + said.err


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_program_is_not_judged(name: str, call: Call) -> None:
    code, said = lint(call, *OTHERS[name])
    assert code == 2 and said.endswith("contains no configuration of dockerd\n"), said
    assert call("lint", ".", "--allow-empty").code == 0
    said = call("lint", OTHERS[name][0]).err
    assert "not recognized" in said


@pytest.mark.parametrize("name", DOCKERS)
def test_a_file_of_dockerd_is_judged(name: str, call: Call) -> None:
    code, said = lint(call, *DOCKERS[name])
    assert code == 1 and any(rule in said for rule in ("DG103", "DG205", "DG302")) and "DG204" not in said, said


@pytest.mark.parametrize("name", [
    *(f"{directory}{name}" for directory in ("", "roles/docker/files/", "etc/docker/") for name in (
        "deamon.json", "daemon.jsn", "faemon.json", "daemin.json", "Daemon.json", "daemon.json.txt",
        "daemons.json", "daemon.jason")),
    *(f"{directory}.d/{name}" for directory in (
        "docker.service", "docker.socket", "etc/systemd/system/docker.service", "etc/systemd/system/docker.socket",
        ".config/systemd/user/docker.service") for name in ("o.cnf", "override", "a.conf.txt", "a.config"))])
def test_a_file_that_its_name_alone_keeps_from_being_read(name: str, call: Call) -> None:
    is_json = "docker." not in name
    lint(call, "safe/daemon.json", "{}")
    code, said = lint(call, name, '{"hosts": ["fd://"]}' if is_json else f"{DROP_IN}fd://\n")
    assert code == 1 and f"{name}:1:1: warning: this file has no effect: " in said and "1 warning\n" in said, said


@pytest.mark.parametrize("name", [
    "deamon.json", "roles/docker/files/deamon.json", "etc/docker/daemon.json.txt", "etc/default/daemon.json",
    "docker.service.d/o.cnf", "roles/docker/templates/docker.service.d/o.cnf.j2", "docker.d/o.conf",
    "dockerd.service.d/o.conf", "etc/systemd/docker.service.d/o.conf",
    "etc/systemd/system/multi-user.target.wants/docker.service"])
def test_a_host_in_a_file_that_is_never_read_is_no_all_clear(name: str, call: Call) -> None:
    """A repository may install it under another name: only errors count, and there is no answer."""
    lint(call, "safe/daemon.json", "{}")
    text = '{\n"hosts": ["%s"]}' if name.endswith((".json", ".txt")) else f"{DROP_IN}%s\n"
    code, said = lint(call, name, text % "tcp://0.0.0.0:2375")
    assert code == 1 and f"{name}:1:1: warning: this file has no effect: " in said, said
    found = call("lint", ".", "--fail-on", "error")
    assert found.code == 2 and f"{name}:{text[:text.index('%')].count(chr(10)) + 1}: names a TCP address" in found.err
    lint(call, name, text % "fd://")
    assert call("lint", ".", "--fail-on", "error").code == 0


def test_a_drop_in_that_another_one_replaces_is_not_named(call: Call) -> None:
    """systemd reads one drop-in of each name; two of a name that it never reads replace nothing."""
    lint(call, "usr/lib/systemd/system/docker.service.d/a.conf", f"{DROP_IN}tcp://0.0.0.0:2375\n")
    lint(call, "etc/systemd/system/docker.service.d/a.conf", f"{DROP_IN}fd://\n")
    said = call("lint", ".", "--fail-on", "error")
    assert said.code == 0 and "[DG301]" in said.out, said.out + said.err
    lint(call, "usr/lib/systemd/system/docker.service.d/b.cnf", f"{DROP_IN}tcp://0.0.0.0:2375\n")
    lint(call, "etc/systemd/system/docker.service.d/b.cnf", f"{DROP_IN}fd://\n")
    assert call("lint", ".", "--fail-on", "error").code == 2


@pytest.mark.parametrize("name", ["etc/docker/daemon-prod.json", "etc/docker/seccomp.json"])
def test_a_file_beside_daemon_json_that_nothing_reads_is_no_configuration(name: str, call: Call) -> None:
    code, said = lint(call, name, '{"live-restore": true}')
    assert code == 2 and said.endswith("the files configure no dockerd: there is nothing to judge\n"), said
    code, said = lint(call, name, '{"hosts": ["tcp://0.0.0.0:2375"]}')
    assert code == 2 and f"{name}:1: names a TCP address for dockerd, in a file that nothing reads" in said, said
    lint(call, "etc/systemd/system/docker.service", f"[Service]\nExecStart=dockerd --config-file=/{name}\n")
    assert call("lint", ".").code == 1


@pytest.mark.parametrize(("name", "package"), [
    ("dockerd.json", "Synology's Container Manager"),
    ("var/packages/Docker/etc/dockerd.json", "Synology's Container Manager"),
    ("share/CACHEDEV1_DATA/.qpkg/container-station/etc/docker.json", "QNAP's Container Station"),
    ("var/snap/docker/current/config/daemon.json", "the docker snap"),
    ("ProgramData/docker/config/daemon.json", "Docker on Windows"),
    ("home/a/.docker/daemon.json", "Docker Desktop")])
def test_a_system_that_starts_dockerd_without_a_host_has_no_conflict(name: str, package: str, call: Call) -> None:
    hosts = '{"hosts": ["unix:///var/run/docker.sock"%s]}'
    code, said = lint(call, name, hosts % "")
    assert code == 0 and f"judged with the stock units of {package} (docker.service)" in said, said
    code, said = lint(call, name, hosts % ', "tcp://0.0.0.0:2375"')
    assert code == 1 and "1 error\n" in said and "[DG103]" in said, said


def test_a_drop_in_beside_it_is_of_dockerd_as_packaged(call: Call) -> None:
    lint(call, "dockerd.json", '{"hosts": ["fd://"]}')
    assert "[DG201]" in lint(call, "docker.service.d/a.conf", "[Service]\nEnvironment=A=b\n")[1]


@pytest.mark.parametrize("name", ["z.cnf", "z", "z.conf.txt", "z.conf.bak", "z.conf~", "z.conf.example",
                                  "z.conf.dockerd-guard-saved"])
@pytest.mark.parametrize("is_named", [True, False])
def test_a_drop_in_that_is_not_read_takes_nothing_back(name: str, is_named: bool, call: Call) -> None:
    lint(call, "docker.service.d/a.conf", f"{DROP_IN}tcp://0.0.0.0:2375\n")
    lint(call, f"docker.service.d/{name}", f"{DROP_IN}fd://\n")
    said = call("lint", *(map(str, Path("docker.service.d").iterdir()) if is_named else ["."]))
    assert said.code == 1 and "docker.service.d/a.conf:3:31: error: tcp://0.0.0.0:2375" in said.out, said.out + said.err


@pytest.mark.parametrize("unit", ["podman.socket", "systemd/containerd.socket", "roles/docker/files/my-api.socket"])
def test_a_drop_in_of_another_unit_is_none_of_dockers(unit: str, call: Call) -> None:
    code, said = lint(call, f"{unit}.d/a.conf", "# for docker clients\n[Socket]\nListenStream=0.0.0.0:8080\n")
    assert code == 2 and "DG10" not in said, said


@pytest.mark.parametrize("name", ["docker/Makefile", "docker/run"])
def test_an_address_in_such_a_file_is_named(name: str, call: Call) -> None:
    code, said = lint(call, name, f"{OPEN}start:\n\tdockerd $(DOCKER_OPTS)\n")
    assert code == 2 and f"{name}:1: names a TCP address for dockerd" in said, said


@pytest.mark.parametrize(("name", "text"), [
    ("docker/x.env", "DOCKER_OPTS=" + "-D " * 300_000),
    ("docker/x.env", "OPTIONS=-D\n" * 80_000),
    ("docker/x.env", "export " * 140_000 + "\nOPTIONS=\n"),
    ("daemon.json", "[" * 900_000),
    ("daemon.json", "{" + ",".join(f'"starting-{number}": 1' for number in range(40_000)) + "}"),
])
def test_long_files_of_others(name: str, text: str, call: Call) -> None:
    def work() -> None:
        lint(call, name, text)

    check_cpu_time(work, 5)
