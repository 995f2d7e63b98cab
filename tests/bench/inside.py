"""The measurements, one function for each row. Runs inside a machine, with only the standard library.

    python3 inside.py ROW COUNT

Prints one JSON object for each table: {"name": "cold", "says": "One pass over ...", "unit": "ms", "samples":
{"program": [1.0, ...], ...}}.

The first program is the base of the ratios. Where possible, the programs are measured in turn, sample by sample, so
that other load affects all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

POLICY = Path("/etc/dockerd-guard/config.yaml")
DROPINS = Path("/etc/systemd/system/docker.service.d")
OVERRIDE = DROPINS / "override.conf"
OURS = DROPINS / "zz-dockerd-guard.conf"
STATUS_FILE = Path("/run/dockerd-guard/status.json")
OPEN = "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"
GUARD = "dockerd-guard.service"
TIMEOUT_S = 60.0
SETTLE_S = 0.1
"""The default of the policy."""

PEERS = Path("/root/peers")
MONIT_PID = Path("/run/bench.pid")
SYSTEMDLINT = ("env", "PYTHONPATH=/opt/systemdlint", "python3", "/opt/systemdlint/bin/systemdlint")

PEER_FILES = {
    "monitrc": "set daemon 1\nset log syslog\nset pidfile /run/bench.pid\nset idfile /run/bench.id\n"
               f"set statefile /run/bench.state\ncheck file drift with path {OVERRIDE}\n"
               '  if exist then exec "/root/peers/monit-exec"\n',
    "playbook.yaml": f"""\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.file: {{path: {OVERRIDE}, state: absent}}
      notify: restart
  handlers:
    - name: restart
      ansible.builtin.systemd: {{name: docker, state: restarted, daemon_reload: true}}
""",
    "site.pp": f"""\
file {{ '{OVERRIDE}': ensure => absent, backup => false }}
~> exec {{ '/bin/systemctl daemon-reload': refreshonly => true }}
~> exec {{ '/bin/systemctl restart docker': refreshonly => true }}
""",
    "aide.conf": "database_in=file:/root/peers/aide.db\ndatabase_out=file:/root/peers/aide.db\n"
                 "/etc/systemd sha256+p+u+g\n/etc/docker sha256+p+u+g\n/usr/lib/systemd/system sha256+p+u+g\n",
}

CORRECT = "#!/bin/sh\nrm -f {override}\nsystemctl daemon-reload\nsystemctl restart docker\n"
REPORT = "#!/bin/sh\nlogger -t monit-saw drift\n"

Samples = dict[str, list[float]]
Table = tuple[str, str, Samples]
"""The name after the row's name, the unit, and the samples of each program."""


def run(*argv: str, check: bool = True) -> str:
    return subprocess.run(argv, check=check, capture_output=True, text=True).stdout


def timed(*argv: str) -> float:
    """Return the milliseconds that a command takes. Its exit code is ignored."""
    start = time.perf_counter()
    subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def in_turn(count: int, commands: dict[str, tuple[str, ...]]) -> Samples:
    samples: Samples = {who: [] for who in commands}
    for command in commands.values():
        timed(*command)  # the files are in the page cache for every program then
    for _ in range(count):
        for who, command in commands.items():
            samples[who].append(timed(*command))
    return samples


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + TIMEOUT_S
    while not (answer := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within {TIMEOUT_S:.0f} s")
        time.sleep(0.005)
    return answer


class Journal:
    """Follows the journal's entries that match any of these, from now on."""

    def __init__(self, *matches: str) -> None:
        any_of = [word for match in matches for word in ("+", match)][1:]
        # Entries that are written before journalctl has started are not lost.
        cursor = json.loads(run("journalctl", "--lines=1", "--output=json"))["__CURSOR"]
        self._process = subprocess.Popen(
            ["journalctl", "--follow", "--output=json", f"--after-cursor={cursor}", *any_of], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        self._rest = b""

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield the new entries."""
        with contextlib.suppress(BlockingIOError):
            self._rest += self._pipe.read() or b""
        *lines, self._rest = self._rest.split(b"\n")
        yield from map(json.loads, lines)

    def wait(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> float:
        """Return the time.time() at which journald received the wanted entry."""
        def first() -> float | None:
            return next((int(entry["__REALTIME_TIMESTAMP"]) / 1e6 for entry in self.entries() if wanted(entry)), None)

        return float(wait_for(first, what))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def policy(mode: str = "observe", more: str = "") -> None:
    """Apply a policy."""
    since = agent_status().get("policy_since")
    POLICY.write_text(f"version: 1\nmode: {mode}\nsockets: [fd://]\n{more}# {time.time_ns()}\n")
    run("systemctl", "reload", GUARD)
    wait_for(lambda: agent_status().get("mode") == mode
             and (agent_status().get("policy_since") != since or not more), "policy")


def agent_status() -> dict[str, Any]:
    try:
        found = json.loads(STATUS_FILE.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def put(path: Path, text: str | None) -> float:
    """Write a file by rename, or delete it. Return its time.time()."""
    path.parent.mkdir(exist_ok=True)
    if text is None:
        path.unlink(missing_ok=True)
    else:
        draft = path.with_name(f".{path.name}")
        draft.write_text(text)
        draft.rename(path)
    return time.time()


def agent_pid() -> int:
    return int(run("systemctl", "show", "--value", "--property=MainPID", GUARD))


def prepare() -> None:
    """Prepare this machine for many restarts, write the files of the peers, and stop the services of their packages."""
    run("systemctl", "stop", "monit", "puppet", "lynis.timer", "dailyaidecheck.timer", check=False)
    Path("/etc/systemd/system/docker.service.d").mkdir(exist_ok=True)
    (DROPINS / "10-limit.conf").write_text("[Unit]\nStartLimitIntervalSec=0\n")
    Path("/etc/docker").mkdir(exist_ok=True)
    Path("/etc/docker/daemon.json").write_text('{"live-restore": true}\n')
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "docker")
    PEERS.mkdir(exist_ok=True)
    for name, text in PEER_FILES.items():
        (PEERS / name).write_text(text)
    (PEERS / "monitrc").chmod(0o600)
    for unit, text in {
        "path-unit-saw.path": f"[Path]\nPathChanged={OVERRIDE}\n",
        "path-unit-saw.service": "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=oneshot\n"
                                 "ExecStart=/usr/bin/logger -t path-unit-saw drift\n",
    }.items():
        Path("/etc/systemd/system", unit).write_text(text)
    run("systemctl", "daemon-reload")


# -- the rows -------------------------------------------------------------------------------------


def cold(count: int) -> Iterator[Table]:
    """One pass over this host's docker.service, each program started once per sample."""
    yield "", "ms", in_turn(count, {
        "dockerd-guard lint": ("dockerd-guard", "lint"),
        "dockerd-guard lint --root /": ("dockerd-guard", "lint", "--root", "/"),
        "python3 -c pass": ("/usr/bin/python3", "-I", "-c", "pass"),
        "systemd-analyze verify": ("systemd-analyze", "verify", "docker.service"),
        "systemdlint": (*SYSTEMDLINT, "/usr/lib/systemd/system/docker.service"),
    })


def audit(count: int) -> Iterator[Table]:
    """One pass, with programs that take longer."""
    run("aide", "--init", "--config", str(PEERS / "aide.conf"))
    yield "", "ms", in_turn(count, {
        "dockerd-guard diff": ("dockerd-guard", "diff"),
        "aide --check": ("aide", "--check", "--config", str(PEERS / "aide.conf")),
        "lynis (its container tests)": ("lynis", "audit", "system", "--quick", "--quiet", "--no-log",
                                        "--tests-from-group", "containers"),
        "ansible --check --diff": ("ansible-playbook", "--check", "--diff", str(PEERS / "playbook.yaml")),
        "puppet apply --noop": ("puppet", "apply", "--noop", "--show_diff", str(PEERS / "site.pp")),
    })


ROOTS = 1000


def roots(count: int) -> Iterator[Table]:
    """A thousand different root directories, in one process where the program supports it; roots per second."""
    top = Path("/root/roots")
    for number in range(ROOTS):
        root = top / str(number)
        units = root / "usr/lib/systemd/system"
        units.mkdir(parents=True, exist_ok=True)
        for name in ("docker.service", "docker.socket"):
            shutil.copy(Path("/usr/lib/systemd/system", name), units)
        dropins = root / "etc/systemd/system/docker.service.d"
        dropins.mkdir(parents=True, exist_ok=True)
        (dropins / f"{number}.conf").write_text(OPEN.replace("2375", str(2000 + number)))
        (root / "etc/docker").mkdir(exist_ok=True)
        (root / "etc/docker/daemon.json").write_text(json.dumps({"labels": [f"number={number}"]}))
    every = [str(top / str(number)) for number in range(ROOTS)]
    lint = ("dockerd-guard", "lint", "--format", "json", "--docker-version", "20.10.24",
            *(word for root in every for word in ("--root", root)))
    files = [f"{root}/etc/systemd/system/docker.service.d/{Path(root).name}.conf" for root in every]
    few = every[:20]
    samples: Samples = {"dockerd-guard lint --root ... --root ...": [], "systemdlint FILE ...": [],
                        "systemd-analyze verify --root=, a process each": []}
    for _ in range(count):
        ours, lints, verify = samples.values()
        ours.append(ROOTS / timed(*lint) * 1000)
        lints.append(ROOTS / timed(*SYSTEMDLINT, *files) * 1000)
        verify.append(len(few) / sum(timed("systemd-analyze", "verify", f"--root={root}", "docker.service")
                                     for root in few) * 1000)
    shutil.rmtree(top)
    yield "", "1/s", samples


def event(count: int) -> Iterator[Table]:
    """From the rename of a drop-in to the journal entry. Each write and each removal is one event."""
    samples: Samples = {"dockerd-guard run": [], "systemd .path unit and logger": [], "monit, cycle of 1 s": []}
    journal = Journal("DOCKERD_GUARD_EVENT=drift", "DOCKERD_GUARD_EVENT=corrected", "SYSLOG_IDENTIFIER=path-unit-saw",
                      "SYSLOG_IDENTIFIER=monit-saw")
    policy("observe")
    for _ in range(count // 2):
        for text, kind in ((OPEN, "drift"), (None, "corrected")):
            time.sleep(random.uniform(0, 0.05))  # a random phase, so that no polling interval is in step
            at = put(OVERRIDE, text)
            seen = journal.wait(lambda entry, kind=kind: entry.get("DOCKERD_GUARD_EVENT") == kind  # type: ignore[misc]
                                and entry.get("DOCKERD_GUARD_RULE") == "DG101", f"entry {kind}")
            samples["dockerd-guard run"].append((seen - at) * 1000)
    run("systemctl", "stop", GUARD)
    run("systemctl", "start", "path-unit-saw.path")
    for number in range(min(count, 100)):
        at = put(OVERRIDE, OPEN if number % 2 == 0 else None)
        seen = journal.wait(lambda entry: entry.get("SYSLOG_IDENTIFIER") == "path-unit-saw", "entry of the path unit")
        samples["systemd .path unit and logger"].append((seen - at) * 1000)
        wait_for(lambda: run("systemctl", "is-active", "path-unit-saw.path", "path-unit-saw.service", check=False)
                 == "active\ninactive\n", "path unit at rest")
    run("systemctl", "stop", "path-unit-saw.path")
    put(OVERRIDE, None)
    with monit(REPORT):
        for _ in range(min(count, 20)):
            time.sleep(random.uniform(1.2, 2.2))
            list(journal.entries())
            at = put(OVERRIDE, OPEN)
            seen = journal.wait(lambda entry: entry.get("SYSLOG_IDENTIFIER") == "monit-saw", "entry of monit")
            samples["monit, cycle of 1 s"].append((seen - at) * 1000)
            put(OVERRIDE, None)
    journal.close()
    run("systemctl", "start", GUARD)
    yield "", "ms", samples


@contextlib.contextmanager
def monit(script: str) -> Iterator[None]:
    """Run monit, with this action for the drift."""
    (PEERS / "monit-exec").write_text(script.format(override=OVERRIDE))
    (PEERS / "monit-exec").chmod(0o755)
    MONIT_PID.unlink(missing_ok=True)
    process = subprocess.Popen(["monit", "-I", "-c", str(PEERS / "monitrc")], stdout=subprocess.DEVNULL)
    try:
        wait_for(MONIT_PID.exists, "monit")
        yield
    finally:
        process.terminate()
        process.wait()


def reload(count: int) -> Iterator[Table]:
    """From the rename of a drop-in until it is overridden and systemd has reloaded; docker.service is not restarted.

    `ours above ...`: what remains after the settle time of the policy and a reload, measured beside it.
    """
    samples: Samples = {"systemctl daemon-reload": [], "dockerd-guard run": [], "ours above settle and reload": []}
    journal = Journal("DOCKERD_GUARD_EVENT=corrected")
    for number in range(count):
        # A different policy each time: ten updates of our own files within ten minutes count as a conflict otherwise.
        policy("enforce", f"correct: {{budget: {1000 + number}/1h}}\n")
        bare = timed("systemctl", "daemon-reload")
        time.sleep(1)
        list(journal.entries())
        at = put(OVERRIDE, OPEN)
        done = journal.wait(lambda entry: entry.get("DOCKERD_GUARD_OUTCOME") == "repaired", "correction")
        took = (done - at) * 1000
        for who, value in zip(samples, (bare, took, took - SETTLE_S * 1000 - bare), strict=True):
            samples[who].append(value)
        put(OVERRIDE, None)
        wait_for(lambda: not OURS.exists(), "end of our drop-in")
        time.sleep(1)
    journal.close()
    yield "", "ms", samples


def restart(count: int) -> Iterator[Table]:
    """From an open API in the running dockerd until a restart has closed it, with containers untouched.

    Each clock starts when the program starts to check: polling intervals are not included, the agent's settle time is.
    """
    samples: Samples = {"rm, systemctl daemon-reload, restart docker": [], "dockerd-guard run": [],
                        "ours above settle and that": [], "monit": [], "ansible-playbook": [], "puppet apply": []}
    bare, ours, above, by_monit, by_ansible, by_puppet = samples.values()
    journal = Journal("DOCKERD_GUARD_EVENT=corrected")

    def open_it() -> None:
        put(OVERRIDE, OPEN)
        run("systemctl", "daemon-reload")
        run("systemctl", "restart", "docker")
        wait_for(is_open, "open port")
        time.sleep(1)

    for _ in range(count):
        policy("observe", "correct: {budget: 1000/1h}\n")
        open_it()
        put(OVERRIDE, None)
        bare.append(timed("systemctl", "daemon-reload") + timed("systemctl", "restart", "docker"))
        assert not is_open()
        open_it()
        list(journal.entries())
        at = time.time()
        policy("enforce", "correct: {budget: 1000/1h}\n")
        done = journal.wait(lambda entry: entry.get("DOCKERD_GUARD_OUTCOME") == "repaired", "correction")
        ours.append((done - at) * 1000)
        above.append(ours[-1] - SETTLE_S * 1000 - bare[-1])
        assert not is_open()
        put(OVERRIDE, None)
        wait_for(lambda: not OURS.exists(), "end of our drop-in")
    journal.close()
    run("systemctl", "stop", GUARD)
    for _ in range(min(count, 5)):
        for samples_of, command in ((by_ansible, ("ansible-playbook", str(PEERS / "playbook.yaml"))),
                                    (by_puppet, ("puppet", "apply", str(PEERS / "site.pp")))):
            open_it()
            samples_of.append(timed(*command))
            assert not is_open()
        open_it()
        at = time.time()
        with monit(CORRECT):
            wait_for(lambda: not is_open() and is_settled(), "correction by monit")
            by_monit.append((time.time() - at) * 1000)
    run("systemctl", "start", GUARD)
    yield "", "ms", samples


def is_open() -> bool:
    """Whether something listens on the port of the drift."""
    return ":2375 " in run("ss", "--listening", "--tcp", "--numeric", "--no-header", check=True)


def is_settled() -> bool:
    return run("systemctl", "is-active", "docker", check=False) == "active\n"


def memory(count: int) -> Iterator[Table]:
    """Resident memory after the start and after many passes, and that of other idle programs."""
    policy("observe", "watch: {settle: 1ms}\n")
    run("systemctl", "restart", GUARD)
    pid = agent_pid()
    wait_for(lambda: agent_status().get("pid") == pid and agent_status().get("state") == "watching", "first pass")
    time.sleep(2)
    samples: Samples = {"dockerd-guard run, after start": [rss_mb(pid)]}
    start = time.monotonic()
    for _ in range(count):
        before = agent_status().get("at")
        os.kill(pid, signal.SIGHUP)
        wait_for(lambda before=before: agent_status().get("at") not in (None, before), "pass")  # type: ignore[misc]
    samples[f"dockerd-guard run, after {count} passes"] = [rss_mb(pid)]
    print(f"{count} passes in {time.monotonic() - start:.0f} s", file=sys.stderr)
    with monit(REPORT):
        samples["monit"] = [rss_mb(int(MONIT_PID.read_text()))]
    for name in ("systemd-journald", "dockerd", "containerd"):
        samples[name] = [rss_mb(int(run("pidof", name).split()[0]))]
    policy("observe")
    yield "", "MB", samples


def rss_mb(pid: int) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024


def idle(seconds: int) -> Iterator[Table]:
    """Ten idle minutes: CPU time and voluntary context switches (wake-ups)."""
    run("systemctl", "restart", GUARD)
    time.sleep(5)
    with monit(REPORT):
        pids = {"dockerd-guard run": agent_pid(), "monit, cycle of 1 s": int(MONIT_PID.read_text()),
                "dockerd": int(run("pidof", "dockerd").split()[0])}
        before = {who: used(pid) for who, pid in pids.items()}
        time.sleep(seconds)
        after = {who: used(pid) for who, pid in pids.items()}
    for index, (name, unit) in enumerate((("CPU", "ms/10min"), ("wake-ups", "1/10min"))):
        yield name, unit, {who: [(after[who][index] - before[who][index]) * 600 / seconds] for who in pids}


def used(pid: int) -> tuple[float, int]:
    """Return milliseconds of CPU time and voluntary context switches of all threads."""
    cpu_ms, switches = 0.0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        cpu_ms += int((task / "schedstat").read_text().split()[0]) / 1e6
        switches += int(next(line for line in (task / "status").read_text().splitlines()
                             if line.startswith("voluntary_ctxt_switches")).split()[1])
    return cpu_ms, switches


def growth(count: int) -> Iterator[Table]:
    """Growth with the number of drop-ins of docker.service, and as many other units with one drop-in each."""
    tables: dict[str, Samples] = {}
    units = Path("/etc/systemd/system")
    journal = Journal("DOCKERD_GUARD_EVENT=drift", "DOCKERD_GUARD_EVENT=corrected")
    made: list[Path] = []
    for size in (0, 10, 100, 1000):
        for number in range(len(made) // 3, size):
            dropin = DROPINS / f"50-{number:04}.conf"
            unit = units / f"bench-{number:04}.service"
            below = units / f"bench-{number:04}.service.d" / "more.conf"
            below.parent.mkdir()
            dropin.write_text(f"[Service]\nEnvironment=NUMBER{number}={number}\n")
            unit.write_text("[Service]\nExecStart=/bin/true\n")
            below.write_text("[Unit]\nDescription=One of many\n")
            made += dropin, unit, below
        run("systemctl", "daemon-reload")
        run("systemctl", "restart", GUARD)
        found = in_turn(count, {
            "dockerd-guard lint": ("dockerd-guard", "lint"),
            "dockerd-guard lint --root /": ("dockerd-guard", "lint", "--root", "/"),
            "systemd-analyze verify": ("systemd-analyze", "verify", "docker.service"),
            "systemctl daemon-reload": ("systemctl", "daemon-reload")})
        events = []
        for _ in range(count):
            for text, kind in ((OPEN, "drift"), (None, "corrected")):
                at = put(OVERRIDE, text)
                seen = journal.wait(lambda entry, kind=kind: entry.get("DOCKERD_GUARD_EVENT") == kind  # type: ignore[misc]
                                    and entry.get("DOCKERD_GUARD_RULE") == "DG101", f"entry {kind}")
                events.append((seen - at) * 1000)
        found |= {"dockerd-guard run, event to entry": events, "dockerd-guard run, MB": [rss_mb(agent_pid())]}
        for name, values in found.items():
            tables.setdefault(name, {})[f"with {size}"] = values
    journal.close()
    for path in made:
        path.unlink()
        if path.name == "more.conf":
            path.parent.rmdir()
    run("systemctl", "daemon-reload")
    for name, samples in tables.items():
        yield name, "MB" if name.endswith("MB") else "ms", samples


ROWS = {row.__name__: row for row in (cold, audit, roots, event, reload, restart, memory, idle, growth)}

if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare()
    else:
        row = ROWS[sys.argv[1]]
        for name, unit, samples in row(int(sys.argv[2])):
            print(json.dumps({"name": f"{row.__name__}{name and ', '}{name}", "unit": unit, "samples": samples,
                              "says": (row.__doc__ or "").partition("\n")[0]}))
