"""The hosts that dockerd listens on, or its error.

Results for 20.10.24, 26.1.5 and 28.5.2 were observed on these releases. Rows about other releases name their source.
"""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockerd_guard.dockerd.daemon import Daemon, resolve_daemon
from dockerd_guard.dockerd.hosts import NO_SOCKETS
from dockerd_guard.dockerd.tls import Note
from dockerd_guard.dockerd.version import NEWEST_DOCKERD, Version
from dockerd_guard.model.address import Tls, Via
from dockerd_guard.model.location import Location
from dockerd_guard.rootfs import Unreadable
from tests.support.cpu_time import check_cpu_time

V19, V20, V23 = Version(19, 3, 15), Version(20, 10, 24), Version(23)
V26, V28, V29 = Version(26, 1, 5), Version(28, 5, 2), Version(29, 7, 2)
UNIX = "unix:///var/run/docker.sock"
GROUPS = b"root:x:0:\ndocker:x:101:\nadm:x:4:\n"


def daemon(command: str = "dockerd", json: str | None = None, version: Version | None = V28,
           files: dict[str, bytes] | None = None, **environ: str) -> Daemon:
    content = dict(files or {})
    if json is not None:
        content["/etc/docker/daemon.json"] = json.encode()

    def read(path: str) -> bytes:
        if path not in content:
            raise FileNotFoundError(path)
        return content[path]

    return resolve_daemon(tuple(shlex.split(command)), {"HOME": "/root", **environ}, read, version)


def addresses(found: Daemon) -> list[str] | str | None:
    return [entry.address for entry in found.hosts] if found.starts else found.reason


@pytest.mark.parametrize(("command", "hosts"), [
    ("dockerd -H fd:// --nothing -H tcp://0.0.0.0:2375", ["fd://", "tcp://0.0.0.0:2375"]),
    ("dockerd --nothing --hos -H tcp://0.0.0.0:2375", ["tcp://0.0.0.0:2375"]),
    ("dockerd --debug=maybe -H tcp://0.0.0.0:2375", ["tcp://0.0.0.0:2375"]),
    ("dockerd -H http://a -H tcp://0.0.0.0:2375", ["http://a", "tcp://0.0.0.0:2375"]),
    ("dockerd -xH tcp://1.2.3.4:1 ---x -DH tcp://0.0.0.0:2375", ["tcp://0.0.0.0:2375"]),
    ("dockerd -H tcp://0.0.0.0:2375 -H", ["tcp://0.0.0.0:2375"]),
    ("dockerd x -H tcp://0.0.0.0:2375 --add-registry=r", ["tcp://0.0.0.0:2375"]),
])
def test_refused_command_lines_have_all_hosts(command: str, hosts: list[str]) -> None:
    found = daemon(command)
    assert not found.starts and [entry.address for entry in found.hosts] == hosts


@pytest.mark.parametrize(("command", "json", "v20", "v28"), [
    ("dockerd", None, [UNIX], [UNIX]),
    ("dockerd -H fd://", None, ["fd://"], ["fd://"]),
    # Sorted since 23.0; before, in the order given.
    ("dockerd -H unix:// -H fd://", None, [UNIX, "fd://"], ["fd://", UNIX]),
    ("dockerd -H :1 -H tcp://localhost:1", None, ["tcp://localhost:1"], ["tcp://localhost:1"]),
    ("dockerd -H ''", None, [UNIX], [UNIX]),
    ("dockerd -H '' -H tcp://0.0.0.0", None, [UNIX, "tcp://0.0.0.0:2375"], ["tcp://0.0.0.0:2375", UNIX]),
    ("dockerd --tls", None, ["tcp://localhost:2376"], ["tcp://localhost:2376"]),
    ("dockerd --tlsverify=false", None, ["tcp://localhost:2376"], ["tcp://localhost:2376"]),
    ("dockerd --tls=false", None, [UNIX], [UNIX]),
    ("dockerd --tlsverify -H tcp://", None, ["tcp://localhost:2375"], ["tcp://localhost:2375"]),
    ("dockerd", '{"tls": true}', ["tcp://localhost:2376"], ["tcp://localhost:2376"]),
    # 23.0 normalises the hosts before tlsverify enables tls.
    ("dockerd", '{"tlsverify": true}', ["tcp://localhost:2376"], [UNIX]),
    ("dockerd", '{"hosts": ["0.0.0.0:"]}', ["tcp://0.0.0.0:2375"], ["tcp://0.0.0.0:2375"]),
    ("dockerd -H ::", None, ["tcp://[::]:2375"],
     'invalid bind address (tcp://[:]:2375): parse "tcp://[:]:2375": invalid host: ParseAddr(":"): unable to parse IP'),
    ("dockerd -H tcp://0.0.0.0:0", None, ["tcp://0.0.0.0:0"],
     'invalid argument "tcp://0.0.0.0:0" for "-H, --host" flag: invalid bind address (tcp://0.0.0.0:0): '
     "invalid port: 0"),
    ("dockerd -H tcp://0.0.0.0:2375/", None,
     "failed to load listeners: listen tcp: lookup tcp/2375/: unknown port",
     'invalid argument "tcp://0.0.0.0:2375/" for "-H, --host" flag: invalid bind address (tcp://0.0.0.0:2375/): '
     "should not contain a path element"),
    ("dockerd -H tcp://[localhost]:1", None, ["tcp://localhost:1"],
     'invalid argument "tcp://[localhost]:1" for "-H, --host" flag: invalid bind address (tcp://[localhost]:1): '
     'parse "tcp://[localhost]:1": invalid host: ParseAddr("localhost"): unable to parse IP'),
])
def test_hosts(command: str, json: str | None, v20: list[str] | str, v28: list[str] | str) -> None:
    assert (addresses(daemon(command, json, V20)), addresses(daemon(command, json, V28))) == (v20, v28)


@pytest.mark.parametrize(("host", "reason"), [
    ("tcp://0.0.0.0:65536", "failed to load listeners: listen tcp: address 65536: invalid port"),
    ("tcp://*:2375", "failed to load listeners: failed to lookup * address in host specification"),
    ("$HOST", "failed to load listeners: failed to lookup $HOST address in host specification"),
    ("--debug", "failed to load listeners: failed to lookup --debug address in host specification"),
    ("fd://docker.socket",
     "failed to load listeners: failed to parse systemd fd address: should be a number: docker.socket"),
    ("npipe://", 'failed to load listeners: invalid protocol format: "npipe"'),
    # dockerd calls chown(2) on every unix socket, which fails for an abstract one.
    ("unix://@docker",
     "failed to load listeners: can't create unix socket @docker: chown @docker: no such file or directory"),
    ("unix:///" + "a" * 107, "failed to load listeners: can't create unix socket /" + "a" * 107
     + ": listen unix /" + "a" * 107 + ": bind: invalid argument"),
    ("unix:///" + "a" * 106, None),
    ("tcp://docker.example:2375", None),
    ("tcp://host_name:2375", None),
    ("fd://3", None),
])
def test_listen_errors(host: str, reason: str | None) -> None:
    assert daemon(f"dockerd -H '{host}'", version=V26).reason == reason


def test_passed_sockets_serve_one_host() -> None:
    assert daemon("dockerd -H fd:// -H fd://3").reason == NO_SOCKETS
    assert daemon("dockerd -H fd:// -H fd://").starts


@pytest.mark.parametrize(("nsswitch", "starts"), [
    (b"hosts: files dns\n", False),
    (b"hosts: files resolve [!UNAVAIL=return] dns\n", True),
    (None, True),
])
def test_only_the_c_library_resolves_numbers(nsswitch: bytes | None, starts: bool) -> None:
    files = {"/etc/nsswitch.conf": nsswitch} if nsswitch else {}
    for host in ("tcp://0:2375", "tcp://127.1:2375", "2375"):
        assert daemon(f"dockerd -H {host}", files=files).starts is starts


@pytest.mark.parametrize(("command", "groups", "starts"), [
    ("dockerd -G adm", GROUPS, True),
    ("dockerd -G nobody", GROUPS, False),
    ("dockerd -G 12345", GROUPS, True),
    ("dockerd -G nobody", b"", True),
    ("dockerd -G nobody -H fd://", GROUPS, True),
    ("dockerd", b"root:x:0:\n", True),
])
def test_socket_group_must_exist(command: str, groups: bytes, starts: bool) -> None:
    assert daemon(command, files={"/etc/group": groups}).starts is starts


@pytest.mark.parametrize(("command", "json", "mode", "notes"), [
    ("dockerd", None, Tls.NONE, ()),
    ("dockerd --tls", None, Tls.MUTUAL, ()),
    ("dockerd --tlsverify", None, Tls.MUTUAL, ()),
    ("dockerd --tlsverify=false", None, Tls.SERVER, (Note.VERIFY_OFF,)),
    ("dockerd --tls --tlsverify=false", None, Tls.SERVER, (Note.VERIFY_OFF,)),
    ("dockerd --tls=false", None, Tls.NONE, ()),
    ("dockerd --tls=false --tlsverify", None, Tls.MUTUAL, ()),
    ("dockerd --tlscacert=/a --tlscert=/b --tlskey=/c", None, Tls.NONE, (Note.CERTIFICATES_ALONE,)),
    ("dockerd", '{"tls": true, "tlscacert": "/a"}', Tls.MUTUAL, ()),
    ("dockerd", '{"tls": true}', Tls.MUTUAL, (Note.NO_CA,)),
    ("dockerd", '{"tlsverify": true}', Tls.MUTUAL, (Note.NO_CA,)),
    ("dockerd", '{"tlsverify": false}', Tls.SERVER, (Note.VERIFY_OFF,)),
    ("dockerd", '{"tls": true, "tlsverify": false}', Tls.SERVER, (Note.VERIFY_OFF,)),
    ("dockerd", '{"tls": false, "tlsverify": true}', Tls.MUTUAL, (Note.NO_CA,)),
    ("dockerd", '{"tls": false}', Tls.NONE, ()),
    ("dockerd", '{"tlscacert": "/a"}', Tls.NONE, (Note.CERTIFICATES_ALONE,)),
    ("dockerd --tls=false", '{"tlsverify": true, "tlscacert": "/a"}', Tls.MUTUAL, ()),
    ("dockerd --tls", '{"tlsverify": false}', Tls.SERVER, (Note.VERIFY_OFF,)),
    ("dockerd --tlsverify", '{"tls": false}', Tls.MUTUAL, ()),
    ("dockerd --tlsverify --tlscacert=", None, Tls.MUTUAL, (Note.NO_CA,)),
    # The presence of the key enables TLS, even null or inside another object (IsValueSet).
    ("dockerd", '{"tlsverify": null}', Tls.MUTUAL, (Note.NO_CA,)),
    ("dockerd", '{"x": {"tlsverify": false}}', Tls.MUTUAL, (Note.NO_CA,)),
    ("dockerd", '{"x": {"tls": true}}', Tls.NONE, ()),
])
def test_tls(command: str, json: str | None, mode: Tls, notes: tuple[Note, ...]) -> None:
    tls = daemon(command, json).tls
    assert (tls.mode, tls.notes) == (mode, notes)


@pytest.mark.parametrize(("command", "version", "mode"), [
    # moby v19.03 cmd/dockerd: conf.TLS = opts.TLS. From the source, not executed.
    ("dockerd", V19, Tls.MUTUAL),
    ("dockerd", V20, Tls.NONE),
    ("dockerd", V28, Tls.NONE),
    # The flag and the environment share a variable: --tls=false enables TLS.
    ("dockerd --tls=false", V20, Tls.MUTUAL),
    ("dockerd --tls=false", V28, Tls.MUTUAL),
    ("dockerd --tlsverify=false", V28, Tls.SERVER),
])
def test_docker_tls_verify(command: str, version: Version, mode: Tls) -> None:
    assert daemon(command, version=version, DOCKER_TLS_VERIFY="0").tls.mode is mode


def test_19_03_requires_client_certificates_only_with_tlsverify() -> None:
    """From the source (if cli.Config.TLSVerify), not executed."""
    assert daemon("dockerd --tls", version=V19).tls.mode == Tls.SERVER
    assert daemon("dockerd --tlsverify", version=V19).tls.mode == Tls.MUTUAL


@pytest.mark.parametrize(("command", "json", "environ", "paths"), [
    ("dockerd --tls", None, {}, ("/root/.docker/ca.pem", "/root/.docker/cert.pem", "/root/.docker/key.pem")),
    ("dockerd --tls", None, {"DOCKER_CONFIG": "/c"}, ("/c/ca.pem", "/c/cert.pem", "/c/key.pem")),
    ("dockerd --tls", None, {"DOCKER_CONFIG": "/c", "DOCKER_CERT_PATH": "/d"},
     ("/d/ca.pem", "/d/cert.pem", "/d/key.pem")),
    ("dockerd --tls --tlscert=/x", '{"tlskey": "/y"}', {}, ("/root/.docker/ca.pem", "/x", "/y")),
    ("dockerd", '{"tls": true}', {}, (None, None, None)),
    ("dockerd", '{"tls": true}', {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/d"},
     ("/d/ca.pem", "/d/cert.pem", "/d/key.pem")),
    ("dockerd --tlscacert=/a", '{"tls": true, "tlscert": "/b"}', {}, (None, "/b", None)),
    ("dockerd --tlscacert=/a", None, {}, (None, None, None)),
])
def test_certificates(command: str, json: str | None, environ: dict[str, str],
                      paths: tuple[str | None, str | None, str | None]) -> None:
    tls = daemon(command, json, V28, None, **environ).tls
    assert (tls.ca, tls.cert, tls.key) == paths


def test_locations_of_hosts() -> None:
    flag, = daemon("dockerd -DHtcp://0.0.0.0").hosts
    assert (flag.raw, flag.address, flag.via, flag.argument, flag.offset, flag.location) == (
        "tcp://0.0.0.0", "tcp://0.0.0.0:2375", Via.FLAG, 1, 3, None)
    string, = daemon(json='{"hosts": ["tcp://0.0.0.0"]}').hosts
    assert (string.via, string.argument, string.location) == (
        Via.DAEMON_JSON, None, Location("/etc/docker/daemon.json", 1, 13, 26))
    default, = daemon().hosts
    assert (default.via, default.argument, default.location) == (Via.DEFAULT, None, None)


def test_refused_hosts_are_as_written() -> None:
    found = daemon("dockerd -H fd:// -H :1", '{"hosts": [":2"]}')
    assert not found.starts
    assert [entry.address for entry in found.hosts] == ["fd://", ":1", ":2"]


@pytest.mark.parametrize(("command", "json", "reason"), [
    ("dockerd --help -H", None, "flag needs an argument: 'H' in -H"),
    ("dockerd --help fd://", None, "dockerd --help prints and exits"),
    ("dockerd -vHtcp://1.2.3.4", None, "dockerd --version prints and exits"),
    ("dockerd daemon -H fd://", None, '"dockerd" accepts no argument(s).'),
    ("dockerd -H = fd://", None, '"dockerd" accepts no argument(s).'),
    ("dockerd --config-file=/nope", None,
     "unable to configure the Docker daemon with file /nope: open /nope: no such file or directory"),
    ("dockerd --config-file=", '{"hosts": 1}', None),
    ("dockerd", '{"hosts": ["http://x"]}', "invalid bind address (http://x): unsupported proto 'http'"),
    ("dockerd --validate", None,
     "configuration OK: dockerd --validate exits after checking the configuration"),
    # Every bool flag is also a key: this one prevents the start, even inside another object.
    ("dockerd", '{"x": {"validate": true}}',
     "configuration OK: dockerd --validate exits after checking the configuration"),
    ("dockerd", '{"validate": false}', None),
    ("dockerd --label a=1 --label a=2", None, "--label: conflict labels for the same name"),
    ("dockerd", '{"log-level": "verbose"}', "log-level: invalid logging level"),
    ("dockerd", '{"exec-opts": [""]}', "exec-opts: invalid exec-opt: must be formatted 'opt=value'"),
    ("dockerd", '{"default-runtime": "nvidia"}',
     "failed to start daemon: default-runtime: specified default runtime does not exist"),
    ("dockerd", '{"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "x"}}}', None),
    ("dockerd", '{"log-opts": {"max-sizes": "1m"}}',
     "failed to start daemon: log-opts: failed to set log opts: unknown log opt 'max-sizes' for this log driver"),
    ("dockerd", '{"insecure-registries": ["a b"]}',
     "failed to start daemon: insecure-registries: insecure registry is not valid: invalid host"),
    ("dockerd --metrics-addr=:9323", None,
     "failed to start metrics server: --metrics-addr: failed to lookup  address in host specification"),
    ("dockerd -b none --bip 10.0.0.1/24", None,
     "failed to start daemon: You specified -b & --bip, mutually exclusive options. Please specify only one"),
    ("dockerd --storage-driver=overlayfs2", None,
     "failed to start daemon: --storage-driver: error initializing graphdriver: driver not supported"),
])
def test_refusals(command: str, json: str | None, reason: str | None) -> None:
    assert daemon(command, json).reason == reason


@pytest.mark.parametrize(("command", "json", "accepted"), [
    ("dockerd --ip6tables", None, {V28}),
    ("dockerd", '{"exec-opts": [""]}', {V20, V26}),
    ("dockerd --cluster-store=x", None, {V20}),
    ("dockerd", '{"registry-mirrors": ["https://m/path"]}', {V26, V28}),
    ("dockerd", '{"registry-mirrors": ["m"]}', set()),
    ("dockerd --default-runtime=io.containerd.x.v1", None, {V26, V28}),
    ("dockerd", '{"max-download-attempts": 0}', {V26, V28}),
    ("dockerd --tlscacert=", None, {V26, V28}),
    ("dockerd -H unix:/var/run/docker.sock", None, set()),
    ("docker daemon", None, set()),
    ("docker -d", None, set()),
])
def test_differences_between_releases(command: str, json: str | None, accepted: set[Version]) -> None:
    assert {version for version in (V20, V26, V28) if daemon(command, json, version).starts} == accepted


@pytest.mark.parametrize(("version", "starts"), [
    (V20, False), (V28, False), (Version(29), True), (Version(29, 7, 2), True), (None, True),
])
def test_minimum_version_of_the_api(version: Version | None, starts: bool) -> None:
    """The way around "client version 1.41 is too old" (moby#51371)."""
    assert daemon("dockerd", '{"min-api-version": "1.24"}', version).starts is starts
    assert not daemon("dockerd", '{"min-api-version": 1.24}', version).starts


@pytest.mark.parametrize(("command", "json"), [
    ("docker daemon -H fd://", None),
    ("docker -d -H fd:// -e lxc", None),
    ("dockerd --cluster-store=x --graph=/x --firewall-backend=nftables", None),
    ("dockerd", '{"exec-opts": [""], "graph": "/x"}'),
])
def test_unknown_release_accepts_options_of_any(command: str, json: str | None) -> None:
    assert daemon(command, json, None).starts


@pytest.mark.parametrize(("json", "live_restore"), [
    ('{"live-restore": true}', True),
    ('{"live-restore": false}', False),
    ('{"x": {"live-restore": true}}', True),
    ("{}", False),
])
def test_live_restore(json: str, live_restore: bool) -> None:
    assert daemon(json=json).live_restore is live_restore
    assert daemon("dockerd --live-restore").live_restore
    assert not daemon("dockerd --live-restore --live-restore=false").live_restore


def rootless(arguments: str = "", version: Version = V28, **environ: str) -> Daemon:
    def read(path: str) -> bytes:
        if path != "/home/x/.config/docker/daemon.json":
            raise FileNotFoundError(path)
        return b'{"debug": true}'

    user = {"USER": "x", "HOME": "/home/x", "XDG_RUNTIME_DIR": "/run/user/1000", **environ}
    return resolve_daemon(("dockerd-rootless.sh", *shlex.split(arguments)), user, read, version)


def test_rootless() -> None:
    found = rootless("--iptables=false -H tcp://0.0.0.0:2375")
    assert (found.starts, found.config_file) == (True, "/home/x/.config/docker/daemon.json")
    assert addresses(found) == ["tcp://0.0.0.0:2375"]
    assert addresses(rootless()) == ["unix:///run/user/1000/docker.sock"]
    assert not rootless("--rootless=false").starts
    assert not rootless(DOCKERD="/opt/other").certain


@pytest.mark.parametrize(("name", "value", "reason"), [
    ("XDG_RUNTIME_DIR", "", "XDG_RUNTIME_DIR needs to be set and writable"),
    ("HOME", "", "HOME needs to be set and exist."),
    ("USER", "root", "This script must be executed as a non-privileged user"),
])
def test_rootless_needs_environment(name: str, value: str, reason: str) -> None:
    assert rootless(**{name: value}).reason == reason  # type: ignore[arg-type]


@pytest.mark.parametrize(("version", "splits"), [("20.10.24", True), ("23.0.3", True), ("23.0.4", False)])
def test_rootless_splits_its_arguments(version: str, splits: bool) -> None:
    assert rootless("'--tls=false -H unix:///x'", Version.parse(version)).starts is splits


def test_unreadable_file_is_uncertain() -> None:
    def read(path: str) -> bytes:
        raise Unreadable(path, "cannot be read: Permission denied")

    found = resolve_daemon(("dockerd",), {}, read, V28)
    assert (found.starts, found.certain, found.config_error) == (True, False, "cannot be read: Permission denied")


WORDS = st.sampled_from([
    "-H", "-Htcp://0.0.0.0", "--host=fd://", "-D", "--tls", "--tlsverify=false", "--", "x", "-", "", "--config-file",
    "/etc/docker/daemon.json", "-DH", "--log-opt", "a=b", "\udcff", "tcp://%ff:1", "-test.x", "--default-ulimit",
]) | st.text(max_size=12)


@given(st.lists(WORDS, max_size=6), st.binary(max_size=60), st.sampled_from([None, V19, V20, V23, V26, V28, V29]))
def test_any_input_resolves(words: list[str], content: bytes, version: Version | None) -> None:
    for program in ("dockerd", "docker", "sh", "env"):
        found = resolve_daemon((program, *words), {"X": "a b"}, lambda _: content, version)
        assert found.starts is (found.reason is None) or (found.starts and not found.certain)


@pytest.mark.parametrize("argv", [
    ("dockerd", *["-Htcp://0.0.0.0:1"] * 20_000),
    ("dockerd", "-" + "D" * 200_000),
    ("dockerd", "-H" + "a" * 1_000_000),
    ("dockerd", "-Htcp://" + "[" * 500_000 + "]" * 500_000),
    ("dockerd", "-Htcp://" + "a." * 500_000 + "!"),
    ("dockerd", "-Htcp://" + "%" * 500_000),
    ("dockerd", "--dns-search=" + "a-" * 500_000),
    ("dockerd", "--insecure-registry=" + "a." * 200_000 + "_"),
    ("sh", "-c", "exec dockerd " + "-H fd:// " * 50_000),
    ("sh", "-c", "\\" * 500_000),
    *[("env",) * 200_000],
])
def test_long_command_lines_take_linear_time(argv: tuple[str, ...]) -> None:
    def work() -> None:
        resolve_daemon(argv, {}, lambda _: b"{}", V28)

    check_cpu_time(work, 10)


def test_import_avoids_large_modules() -> None:
    """`lint` has to start fast: this package must not import large parts of the standard library."""
    code = ("import sys; before = set(sys.modules); import dockerd_guard.dockerd.daemon; "
            "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"argparse", "dataclasses", "inspect", "json", "subprocess", "typing_extensions"} & set(
        done.stdout.split())


def test_unknown_release_is_read_as_newest() -> None:
    assert daemon("dockerd -H '' -H fd://", version=None).hosts == daemon(
        "dockerd -H '' -H fd://", version=NEWEST_DOCKERD).hosts
