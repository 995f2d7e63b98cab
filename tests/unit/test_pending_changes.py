"""What a restart would put in force besides where Docker listens: what runs, compared with the files since."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from dockerd_guard.observe.configured import observe_configured, values
from dockerd_guard.observe.loaded_files import is_loaded
from dockerd_guard.observe.observation import LOADED, RUNNING, Configured, Loaded, Observation, Process, Running
from dockerd_guard.observe.started import INVOCATION, StartRecord
from dockerd_guard.plan.pending_changes import pending_changes, start_record
from dockerd_guard.rootfs import Rootfs
from tests.support.regression_cases import DROP_IN, JSON, PLAIN, SERVICE

OURS = "/etc/systemd/system/docker.service.d/zz-dockerd-guard.conf"
ENVIRONMENT = "/etc/default/docker"
TRANSIENT = "/run/systemd/system/docker.service.d/limits.conf"
OTHER = "/etc/systemd/system/docker.service.d/limits.conf"
LATE = "/etc/systemd/system/docker.service.d/z.conf"
PROPERTY = "/run/systemd/system.control/docker.service.d/50-IPAddressDeny.conf"
WRAPPER = "/usr/local/sbin/run-docker"
DOCKERD = "/usr/bin/dockerd"
WRAPPED = f"#!/bin/sh\nexec {DOCKERD} \"$@\"\n"
START = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd://"
ETC_UNIT = "/etc/systemd/system/docker.service"
FULL = '"storage-driver": "overlay2",\n "log-opts": {"max-size": "10m"}'

Files = Mapping[str, str | None]


class Case(NamedTuple):
    """`at_start`: files that dockerd was started with, beside a plain docker.service. `since`: what they are now.

    `known`: the agent saw dockerd before that. `not_loaded`: files that were there at the start too, and that systemd
    had not loaded. `knows_earlier`: the agent saw the dockerd before, which was started with the same files. `unseen`:
    what was changed, and loaded by systemd, after the start and before the agent saw dockerd.
    """

    name: str
    at_start: Files
    since: Files
    words: tuple[str, ...] = ()
    known: bool = True
    in_swarm: bool = False
    not_loaded: Files = MappingProxyType({})
    knows_earlier: bool = False
    unseen: Files = MappingProxyType({})


FOREIGN = f"[Service]\nExecStart=\nExecStart={WRAPPER} -H fd://\n"


CASES = (
    Case("nothing", {}, {}),
    Case("a limit, and nothing is known of the start", {}, {OTHER: "[Service]\nLimitNOFILE=9999\n"},
         (f"LimitNOFILE= ({OTHER}:2)",), known=False),
    # The command line.
    Case("a flag more", {}, {DROP_IN: f"{START} \\\n  --userns-remap=nobodyhere\n"},
         (f"--userns-remap ({DROP_IN}:4)",)),
    Case("a flag less", {DROP_IN: f"{START} -s overlay2\n"}, {DROP_IN: f"{START}\n"}, ("--storage-driver removed",)),
    Case("another value", {DROP_IN: f"{START} --bip=10.1.0.1/24\n"}, {DROP_IN: f"{START} --bip=10.2.0.1/24\n"},
         (f"--bip ({DROP_IN}:3)",)),
    Case("out of an environment file", {DROP_IN: f"{START} $OPTIONS\n[Service]\nEnvironmentFile={ENVIRONMENT}\n",
                                        ENVIRONMENT: 'OPTIONS="--label a=b"\n'},
         {ENVIRONMENT: 'OPTIONS="--label a=b --userns-remap nobodyhere"\n'}, (f"--userns-remap ({ENVIRONMENT}:1)",)),
    Case("hosts, TLS and what cannot hurt",
         {DROP_IN: f"{START} -H tcp://0.0.0.0:2375 --tls=false -D --label a=b\n"},
         {DROP_IN: f"{START} --live-restore --log-level=warn --registry-mirror=https://mirror.example\n"}),
    Case("the same by another spelling", {DROP_IN: f"{START} -s overlay2 -H tcp://0.0.0.0:2375\n"},
         {DROP_IN: f"{START} --storage-driver=overlay2\n"}),
    Case("our own drop-in is no news", {DROP_IN: f"{START} -H tcp://0.0.0.0:2375\n"},
         {OURS: f"{START}\n[Service]\nExecStartPre=/bin/true\n"}),
    Case("a wrapper that gets not even an argv[0]",
         {WRAPPER: WRAPPED.replace('"$@"', "-H fd://"), DROP_IN: f"[Service]\nExecStart=\nExecStart=@{WRAPPER} $NO\n"},
         {WRAPPER: WRAPPED.replace('"$@"', "-H fd:// --bip=10.1.0.1/24")},
         (f"--bip ({DROP_IN}:3)", f"{WRAPPER} ({DROP_IN}:3)")),
    # daemon.json
    Case("a key more", {JSON: "{}"}, {JSON: '{"userns-remap": "nobodyhere"}'}, (f'"userns-remap" ({JSON}:1)',)),
    Case("a file of its own", {}, {JSON: '{"debug": true,\n "bip": "10.1.0.1/24"}'}, (f'"bip" ({JSON}:2)',)),
    Case("a key less", {JSON: '{"data-root": "/srv"}'}, {JSON: "{}"}, (f'"data-root" removed ({JSON})',)),
    Case("the file gone", {JSON: '{"data-root": "/srv"}'}, {JSON: None}, (f'"data-root" removed ({JSON})',)),
    Case("a key of the same name as one inside another", {JSON: "{}"},
         {JSON: '{"mtu": 1400,\n "network":\n {"mtu": 1500}}'}, (f'"mtu" ({JSON}:1)', f'"network" ({JSON}:2)')),
    Case("keys that cannot hurt", {}, {JSON: """{"debug": true, "log-level": "warn", "labels": ["a=b"],
        "insecure-registries": ["r.example"], "registry-mirrors": ["https://mirror.example"], "live-restore": true,
        "max-concurrent-downloads": 9, "max-concurrent-uploads": 9, "max-download-attempts": 9,
        "shutdown-timeout": 60}"""}),
    Case("a file that dockerd would refuse", {JSON: '{"mtu": 1400}'}, {JSON: "[]"}, (f'"mtu" removed ({JSON})',)),
    Case("our advice", {JSON: f"{{{FULL}}}"}, {JSON: f'{{{FULL}, "live-restore": true}}'}),
    Case("our advice, in a swarm, where dockerd would not start with it", {}, {JSON: '{"live-restore": true}'},
         (f'"live-restore" ({JSON}:1)',), in_swarm=True),
    Case("our edit", {JSON: f'{{{FULL}, "hosts": ["fd://"]}}'}, {JSON: f"{{{FULL}}}"}),
    Case("written again as it was", {JSON: f"{{{FULL}}}"}, {JSON: f"{{ {FULL} }}"}),
    Case("nobody knows what it was: all but what cannot hurt counts", {JSON: f"{{{FULL}}}"},
         {JSON: f'{{{FULL}, "live-restore": true, "hosts": ["fd://"]}}'},
         (f'"log-opts" ({JSON}:2)', f'"storage-driver" ({JSON}:1)'), known=False),
    Case("nobody knows, and it has not changed", {JSON: f"{{{FULL}}}"}, {}, known=False),
    # The environment and the unit.
    Case("a variable that dockerd reads", {}, {DROP_IN: "[Service]\nEnvironment=DOCKER_DRIVER=btrfs FOO=bar\n"},
         ("DOCKER_DRIVER in the environment",)),
    Case("each variable that affects a start", {}, {
        DROP_IN: "[Service]\nEnvironment=TMPDIR=/a PATH=/b LD_PRELOAD=/c LD_LIBRARY_PATH=/d\n"
                 "Environment=DOCKER_TMPDIR=/e DOCKER_RAMDISK=1\n"},
         tuple(f"{name} in the environment" for name in (
             "DOCKER_RAMDISK", "DOCKER_TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR"))),
    Case("a variable that dockerd was started with", {DROP_IN: "[Service]\nEnvironment=DOCKER_DRIVER=btrfs\n"}, {}),
    Case("settings whose result is compared, or that have none", {}, {
        DROP_IN: "[Unit]\nDocumentation=man:x(1)\n[Service]\nEnvironmentFile=-/etc/x\nPassEnvironment=X\n"
                 "UnsetEnvironment=X\n[Install]\nAlias=x.service\n"}),
    Case("a setting of the unit", {}, {DROP_IN: "[Unit]\nDescription=x\n[Service]\nExecStartPre=/bin/false\n"},
         (f"ExecStartPre= ({DROP_IN}:4)",)),
    Case("a setting of the unit until the next boot", {}, {TRANSIENT: "[Service]\nExecStartPre=/bin/false\n"},
         (f"ExecStartPre= ({TRANSIENT}:2)",)),
    Case("a setting that is gone", {DROP_IN: "[Service]\nExecStartPre=/bin/true\n"}, {DROP_IN: None},
         ("ExecStartPre= no more",)),
    Case("nobody knows what it was: newer settings count", {OTHER: "[Service]\nLimitNOFILE=9999\n"},
         {DROP_IN: "[Service]\nExecStartPre=/bin/false\n"}, (f"ExecStartPre= ({DROP_IN}:2)",), known=False),
    Case("a setting that somebody has written to our drop-in", {OURS: "[Service]\nLimitNOFILE=9999\n"}, {}),
    Case("a setting that it was started with", {DROP_IN: "[Service]\nExecStartPre=/bin/true\n"}, {}),
    Case("a property that is in force since it was set",
         {}, {PROPERTY: "[Service]\nIPAddressDeny=any\n"}),
    Case("the package's unit is upgraded", {}, {SERVICE: f"{PLAIN[SERVICE].decode()}ExecStartPre=/bin/true\n"}),
    # Programs that start dockerd.
    Case("no command at all", {DROP_IN: "[Service]\nExecStart=\n"}, {}),
    Case("a wrapper", {DROP_IN: f"[Service]\nExecStart=\nExecStart={WRAPPER} -H fd:// -H tcp://0.0.0.0:2375\n",
                       WRAPPER: WRAPPED}, {}),
    Case("a wrapper of which nobody knows",
         {DROP_IN: f"[Service]\nExecStart=\nExecStart={WRAPPER} -H fd://\n", WRAPPER: WRAPPED}, {}, known=False),
    Case("a wrapper that was changed", {DROP_IN: f"[Service]\nExecStart=\nExecStart={WRAPPER} -H fd://\n",
                                        WRAPPER: WRAPPED}, {WRAPPER: WRAPPED.replace("exec", "false ||exec")},
         (f"{WRAPPER} ({DROP_IN}:3)",)),
    Case("a wrapper that is new to the unit", {WRAPPER: WRAPPED},
         {DROP_IN: f"[Service]\nExecStart=\nExecStart={WRAPPER} -H fd://\n"}, (f"{WRAPPER} ({DROP_IN}:3)",)),
    # Without daemon-reload before the start.
    Case("a setting that systemd had not loaded", {}, {}, (f"ExecStartPre= ({DROP_IN}:2)",),
         not_loaded={DROP_IN: "[Service]\nExecStartPre=/bin/false\n"}),
    Case("another value that systemd had not loaded", {DROP_IN: "[Service]\nExecStartPre=/bin/true\n"}, {},
         (f"ExecStartPre= ({DROP_IN}:2)",), not_loaded={DROP_IN: "[Service]\nExecStartPre=/bin/false\n"}),
    Case("a wrapper that systemd had not loaded", {WRAPPER: WRAPPED}, {}, (f"{WRAPPER} ({DROP_IN}:3)",),
         not_loaded={DROP_IN: f"[Service]\nExecStart=\nExecStart={WRAPPER} -H fd://\n"}),
    Case("a unit that systemd had not loaded", {}, {},
         (f"Requires= ({ETC_UNIT}:2)", f"Type= ({ETC_UNIT}:4)", f"ExecStartPre= ({ETC_UNIT}:6)"),
         not_loaded={ETC_UNIT: f"{PLAIN[SERVICE].decode()}ExecStartPre=/bin/false\n"}),
    Case("a setting beside one that dockerd was started with", {OTHER: "[Service]\nLimitNOFILE=9999\n"}, {},
         (f"ExecStartPre= ({DROP_IN}:2)",), not_loaded={DROP_IN: "[Service]\nExecStartPre=/bin/false\n"},
         knows_earlier=True),
    Case("a touched drop-in", {OTHER: "[Service]\nLimitNOFILE=9999\n"}, {},
         not_loaded={OTHER: "[Service]\nLimitNOFILE=9999\n"}, knows_earlier=True),
    Case("a touched drop-in of a wrapper",
         {OTHER: f"[Service]\nExecStart=\nExecStart={WRAPPER} -H fd://\n", WRAPPER: WRAPPED}, {},
         not_loaded={OTHER: f"[Service]\nExecStart=\nExecStart={WRAPPER} -H fd://\n"}, knows_earlier=True),
    Case("a touched drop-in, at the first sight", {OTHER: "[Service]\nLimitNOFILE=9999\n"}, {},
         (f"LimitNOFILE= ({OTHER}:2)",), not_loaded={OTHER: "[Service]\nLimitNOFILE=9999\n"}),
    # Changed before the agent saw dockerd.
    Case("daemon.json, then the drop-in that another program was hidden by",
         {DROP_IN: FOREIGN, LATE: f"{START}\n", WRAPPER: WRAPPED}, {LATE: None},
         (f'"mtu" ({JSON}:1)', f"{WRAPPER} ({DROP_IN}:3)"), unseen={JSON: '{"mtu": 1400}'}),
    Case("daemon.json, with what cannot hurt", {OTHER: "[Service]\nLimitNOFILE=9999\n"}, {},
         unseen={JSON: '{"debug": true}'}),
    Case("a drop-in, then the one that another program was hidden by",
         {DROP_IN: FOREIGN, LATE: f"{START}\n", WRAPPER: WRAPPED}, {LATE: None},
         (f"Nice= ({OTHER}:2)", f"{WRAPPER} ({DROP_IN}:3)"), unseen={OTHER: "[Service]\nNice=1\n"}),
    Case("the drop-in that another program was hidden by", {DROP_IN: FOREIGN, LATE: f"{START}\n", WRAPPER: WRAPPED}, {},
         (f"{WRAPPER} ({DROP_IN}:3)",), unseen={LATE: None}),
    Case("a drop-in that hides another program no more",
         {DROP_IN: FOREIGN, LATE: f"{START}\n", WRAPPER: WRAPPED}, {}, (f"{WRAPPER} ({DROP_IN}:3)",),
         unseen={LATE: "[Service]\n"}),
    Case("one of two drop-ins", {OTHER: "[Service]\nLimitNOFILE=9999\n"}, {OTHER: None},
         (f"Nice= ({DROP_IN}:2)", "LimitNOFILE= no more"), unseen={DROP_IN: "[Service]\nNice=1\n"}),
    Case("a daemon.json that is mounted, with the content of the start", {JSON: f"{{{FULL}}}"}, {},
         unseen={"/proc/self/mountinfo": f"21 1 8:1 /x {JSON} rw - ext4 /dev/sda rw\n"}),
    Case("a property that was set, at a wrapper", {DROP_IN: FOREIGN, WRAPPER: WRAPPED}, {},
         unseen={f"{PROPERTY}~": None, PROPERTY: "[Service]\n"}),
    Case("a drop-in, taken back later", {}, {DROP_IN: None}, unseen={DROP_IN: "[Service]\nNice=1\n"}),
)


def lay(root: Path, files: Files, after_ns: int = 0) -> int:
    """Put files there, all of them changed after that time; when the last one was."""
    latest = 0
    for name, content in files.items():
        path = root / name[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            path.write_text(content or "")
            # As cp -p does.
            os.utime(path, (1, 1))
            if (changed := path.stat().st_ctime_ns) > after_ns:
                break
        if content is None:
            path.unlink()
        else:
            latest = max(latest, changed)
    return latest


def loaded(configured: Configured, need_daemon_reload: bool, invocation: str) -> Loaded:
    return Loaded(configured.layer._replace(name=LOADED), configured.service, configured.sockets, configured.arguments,
                  configured.daemon, "active", 1, need_daemon_reload, {}, (), invocation)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_only_what_may_keep_dockerd_from_starting_is_reported(tmp_path: Path, case: Case) -> None:
    plain = {name: content.decode() for name, content in PLAIN.items()}
    lay(tmp_path, {**plain, DOCKERD: "", **case.at_start})
    at_start = observe_configured(Rootfs(str(tmp_path)))
    by_systemd = at_start
    argv = (DOCKERD, *at_start.layer.argv[1:])

    def see(invocation: str = "1") -> Observation:
        rootfs = Rootfs(str(tmp_path))
        environ = {**values(at_start.environment), "PATH": "/bin", INVOCATION: invocation}
        process = Process(1, argv, environ, started_ns, "docker.service", DOCKERD)
        is_changed = bool(case.not_loaded) and invocation == "1"
        return Observation(rootfs, observe_configured(rootfs), loaded(by_systemd, is_changed, invocation),
                           Running(at_start.layer._replace(name=RUNNING), process, at_start.daemon))

    started_ns = lay(tmp_path, {DOCKERD: ""})
    earlier = start_record(see("0"), None) if case.knows_earlier else None
    started_ns = lay(tmp_path, {DOCKERD: "", **case.not_loaded})
    lay(tmp_path, case.unseen, started_ns)
    if case.unseen:
        by_systemd = observe_configured(Rootfs(str(tmp_path)))
    known = start_record(see(), earlier) if case.known else None
    assert (known is not None) is case.known
    lay(tmp_path, case.since, started_ns)
    with see().rootfs.changed({OURS: None}) as without:
        base = observe_configured(without)
    assert pending_changes(see(), base, known, in_swarm=case.in_swarm) == case.words


@pytest.mark.parametrize(("path", "is_after", "is_known"), [
    (DROP_IN, True, False), (DROP_IN, False, True), (DROP_IN, None, True),
    (ETC_UNIT, True, False), (ETC_UNIT, False, True), ("/etc/systemd/system/service.d/all.conf", True, False),
    # What systemd has written itself.
    ("/etc/systemd/system.control/docker.service.d/50-MemoryMax.conf", True, True),
    ("/run/systemd/generator/docker.service.d/race.conf", True, True),
    ("/run/systemd/generator.late/docker.service.d/race.conf", True, True),
])
@pytest.mark.parametrize("is_linked", [False, True])
def test_a_file_that_came_with_an_old_mtime_is_not_loaded(
        tmp_path: Path, path: str, *, is_after: bool | None, is_known: bool, is_linked: bool) -> None:
    """NeedDaemonReload= stays `no` (systemd 252, 257 and 262). `is_after`: it came after the last load."""
    lay(tmp_path, {name: content.decode() for name, content in PLAIN.items()})
    lay(tmp_path, {path: "[Service]\nNice=1\n"})
    file = tmp_path / path.lstrip("/")
    if is_linked:
        target = file.rename(tmp_path / "elsewhere.conf")
        file.symlink_to("/elsewhere.conf")
        os.utime(file, (0, 0), follow_symlinks=False)
        file = target
        file.touch()
    os.utime(file, (0, 0))
    at_ns = file.stat().st_ctime_ns
    now = observe_configured(Rootfs(str(tmp_path)))
    loaded_ns = 0 if is_after is None else at_ns - 1 if is_after else at_ns
    seen = Observation(Rootfs(str(tmp_path)), now, loaded(now, False, "1")._replace(units_loaded_ns=loaded_ns))
    assert is_loaded(seen) is is_known


def running_of(configured: Configured, started_ns: int, **environ: str) -> Running:
    process = Process(1, configured.layer.argv, environ, started_ns, "docker.service", DOCKERD)
    return Running(configured.layer._replace(name=RUNNING), process, configured.daemon)


PRE = "[Service]\nExecStartPre=/srv/x\n"


@pytest.mark.parametrize(("text", "loaded_since", "after_boot", "words"), [
    (PRE, True, True, (f"ExecStartPre= ({DROP_IN}:2)",)),
    # systemd had loaded it: with the boot, or before the start.
    (PRE, True, False, ()), (PRE, False, True, ()),
    # It runs nothing.
    ("[Service]\nLimitNOFILE=9999\n", True, True, ()),
    (FOREIGN, True, True, (f"{WRAPPER} ({DROP_IN}:3)",)), (FOREIGN, True, False, ()), (FOREIGN, False, True, ()),
])
@pytest.mark.parametrize("is_recorded", [True, False])
def test_what_may_have_been_loaded_after_the_start_is_pending(  # noqa: PLR0913, PLR0917 -- the table
    tmp_path: Path, text: str, loaded_since: bool, after_boot: bool, words: tuple[str, ...], is_recorded: bool
) -> None:
    """Somebody wrote a drop-in, started docker.service, and ran daemon-reload then; or ran it before the start."""
    lay(tmp_path, {**{name: content.decode() for name, content in PLAIN.items()}, DOCKERD: "", WRAPPER: WRAPPED})
    written_ns = lay(tmp_path, {DROP_IN: text})
    started_ns = lay(tmp_path, {"/srv/later": ""}, written_ns)
    rootfs = Rootfs(str(tmp_path))
    now = observe_configured(rootfs)
    in_memory = loaded(now, False, "1")._replace(
        units_loaded_ns=started_ns + 1 if loaded_since else started_ns, booted_ns=1 if after_boot else started_ns)
    seen = Observation(rootfs, now, in_memory, running_of(now, started_ns, INVOCATION_ID="1"))
    record = start_record(seen, None) if is_recorded else None
    assert (record is not None) is is_recorded
    assert pending_changes(seen, now, record, in_swarm=False) == words
    if is_recorded and not loaded_since:
        # What was recorded stays known when systemd loads its units again.
        since = seen._replace(loaded=in_memory._replace(units_loaded_ns=started_ns + 1))
        assert pending_changes(since, now, record, in_swarm=False) == words


def test_what_another_dockerd_was_started_with_says_nothing(tmp_path: Path) -> None:
    plain = {name: content.decode() for name, content in PLAIN.items()}
    started_ns = lay(tmp_path, {
        **plain, WRAPPER: WRAPPED, OTHER: f"[Service]\nLimitNOFILE=9999\nExecStart=\nExecStart={WRAPPER} -H fd://\n"})
    lay(tmp_path, {JSON: '{"mtu": 1400}'}, started_ns)
    rootfs = Rootfs(str(tmp_path))
    now = observe_configured(rootfs)
    seen = Observation(rootfs, now, running=running_of(now, started_ns, INVOCATION_ID="2"))
    earlier = StartRecord("1", b'{"mtu": 1400}', ())
    assert start_record(seen, earlier) is None
    assert pending_changes(seen, now, earlier, in_swarm=False) == (f'"mtu" ({JSON}:1)',)
    assert pending_changes(seen._replace(running=None), now, earlier, in_swarm=False) == ()


@pytest.mark.parametrize(("command", "executable", "is_replaced", "words"), [
    (DOCKERD, DOCKERD, True, (f"{DOCKERD}, which was replaced",)),
    (DOCKERD, DOCKERD, False, ()),
    # A dockerd by another name.
    ("/opt/engine", "/opt/engine", True, ("/opt/engine, which was replaced",)),
    # A wrapper that execs dockerd, and one that stays: the shell may be replaced.
    (WRAPPER, DOCKERD, True, (f"{DOCKERD}, which was replaced",)),
    (WRAPPER, "/usr/bin/bash", True, ()),
])
def test_an_upgraded_dockerd_is_reported(
    tmp_path: Path, command: str, executable: str, is_replaced: bool, words: tuple[str, ...]
) -> None:
    """A package was unpacked, and not configured yet, or its restart was put off (policy-rc.d)."""
    plain = {name: content.decode() for name, content in PLAIN.items()}
    started_ns = lay(tmp_path, {**plain, DOCKERD: "", "/opt/engine": "", WRAPPER: WRAPPED,
                                DROP_IN: f"[Service]\nExecStart=\nExecStart={command} -H fd://\n"})
    rootfs = Rootfs(str(tmp_path))
    now = observe_configured(rootfs)
    running = running_of(now, started_ns, INVOCATION_ID="1")
    process = running.process._replace(executable=executable, is_replaced=is_replaced)
    seen = Observation(rootfs, now, running=running._replace(process=process))
    assert pending_changes(seen, now, None, in_swarm=False) == words


@pytest.mark.parametrize("changed", [WRAPPER, "/etc/alternatives/run-docker"])
def test_a_link_that_leads_to_another_program_is_reported(tmp_path: Path, changed: str) -> None:
    """As update-alternatives(1) changes it. The programs themselves are older than the start."""
    plain = {name: content.decode() for name, content in PLAIN.items()}
    lay(tmp_path, {**plain, "/opt/one": WRAPPED, "/opt/two": WRAPPED, WRAPPER: "", "/etc/alternatives/run-docker": "",
                   DROP_IN: f"[Service]\nExecStart=\nExecStart={WRAPPER} -H fd://\n"})
    links = {WRAPPER: "../../../etc/alternatives/run-docker", "/etc/alternatives/run-docker": "/opt/one"}

    def put(path: str, target: str) -> int:
        file = tmp_path / path[1:]
        file.unlink()
        file.symlink_to(target)
        return file.lstat().st_ctime_ns

    started_ns = max(put(path, target) for path, target in links.items())

    def pending() -> tuple[str, ...]:
        with Rootfs(str(tmp_path)) as rootfs:
            now = observe_configured(rootfs)
            seen = Observation(rootfs, now, None, running_of(now, started_ns, INVOCATION_ID="1"))
            return pending_changes(seen, now, StartRecord("1", None, (f"program={WRAPPER}",)), in_swarm=False)

    assert pending() == ()
    while put(changed, "/opt/two") <= started_ns:
        pass
    assert pending() == (f"{WRAPPER} ({DROP_IN}:3)",)


SEEN_BEFORE = StartRecord("2", None)


@pytest.mark.parametrize(("environ", "answer", "known", "is_recorded"), [
    ({INVOCATION: "2"}, "2", None, True),
    ({INVOCATION: "2"}, "2", StartRecord("1", None), True),
    ({INVOCATION: "2"}, "2", SEEN_BEFORE, False),
    ({INVOCATION: "2"}, None, None, False),
    # An answer of systemd from before the start.
    ({INVOCATION: "2"}, "1", None, False),
    ({}, "2", None, False),
    ({INVOCATION: ""}, "", None, False),
    (None, "2", None, False),
])
def test_a_start_is_recorded_once(
    tmp_path: Path, environ: Mapping[str, str] | None, answer: str | None, known: StartRecord | None, is_recorded: bool
) -> None:
    started_ns = lay(tmp_path, {name: content.decode() for name, content in PLAIN.items()})
    rootfs = Rootfs(str(tmp_path))
    now = observe_configured(rootfs)
    seen = Observation(rootfs, now, None if answer is None else loaded(now, False, answer),
                       None if environ is None else running_of(now, started_ns, **environ))
    found = start_record(seen, known)
    # Stored by one release and read by the next one.
    assert found == (StartRecord("2", None, (f"program={DOCKERD}",)) if is_recorded else None)


@pytest.mark.parametrize(("since", "settings"), [
    ({}, ("Service.LimitNOFILE=9999", f"program={DOCKERD}")),
    ({DROP_IN: "[Service]\nExecStartPre=/bin/true\n"}, ("Service.LimitNOFILE=9999",)),
    ({OTHER: "[Service]\nLimitNOFILE=1\n"}, ()),
    # A drop-in without any setting may have had some.
    ({OTHER: ""}, ()),
])
def test_what_has_changed_since_the_start_is_not_recorded(
        tmp_path: Path, since: Files, settings: tuple[str, ...]) -> None:
    plain = {name: content.decode() for name, content in PLAIN.items()}
    started_ns = lay(tmp_path, {**plain, OTHER: "[Service]\nLimitNOFILE=9999\n"})
    lay(tmp_path, since, started_ns)
    rootfs = Rootfs(str(tmp_path))
    now = observe_configured(rootfs)
    seen = Observation(rootfs, now, loaded(now, False, "1"), running_of(now, started_ns, INVOCATION_ID="1"))
    assert start_record(seen, None) == StartRecord("1", None, settings)
    not_loaded = seen._replace(loaded=loaded(now, True, "1"))
    assert start_record(not_loaded, None) == StartRecord("1", None, None if since else ())
    lay(tmp_path, {JSON: "{}"}, started_ns)
    with rootfs.changed({}) as later:
        unknown = StartRecord("1", None, settings, knows_daemon_json=False)
        assert start_record(seen._replace(rootfs=later), None) == unknown
        not_loaded = seen._replace(rootfs=later, loaded=loaded(now, True, "1"))
        assert start_record(not_loaded, None) == (None if since else unknown._replace(settings=()))
