"""A correction that takes everything, cut short at any of its steps, and how the host stands then.

The drift is of every kind: a port in a drop-in that sorts after ours, another in docker.socket, a
third in a socket unit of somebody's own, and a key in daemon.json that no flag overrules. So the correction
writes three drop-ins of ours, edits and saves daemon.json, sets the foreign drop-in aside, stops the foreign
socket unit, and restarts docker.socket and docker.service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.machines.machine import Machine, wait_for
from tests.support import crash_points
from tests.support.correction import DOCKERD, LIVE_RESTORE, POLICY, SOCKET_OVERRIDE

AGENT = "dockerd-guard.service"
STATE = "/var/lib/dockerd-guard"
MODULES = "/usr/lib/python3/dist-packages"
LATER = "/etc/systemd/system/docker.service.d/zzz.conf"

DRIFT = {
    LATER: f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --label=a=b\n",
    SOCKET_OVERRIDE: "[Socket]\nListenStream=0.0.0.0:4243\n",
    "/etc/systemd/system/docker-tcp.socket":
        "[Socket]\nListenStream=4244\nService=docker.service\n[Install]\nWantedBy=sockets.target\n",
    "/etc/docker/daemon.json": '{\n  "live-restore": true,\n  "tls": false\n}\n',
}

SOCKETS = "version: 1\nsockets:\n  - fd://\n  - {address: 'tcp://127.0.0.1:2376', tls: none}\n"
ENFORCE = f"{SOCKETS}mode: enforce\ncorrect: {{budget: 1000/1h}}\nwatch: {{resync: 5s}}\n"
OBSERVE = f"{SOCKETS}mode: observe\n"

RESET = f"""
systemctl stop {AGENT}
nft delete table inet dockerd_guard
rm -rf {STATE}/* /etc/systemd/system/docker*.d /etc/docker/daemon.json* {crash_points.ORDER_FILE}
"""
OPEN_UP = """
systemctl daemon-reload
systemctl enable --quiet docker-tcp.socket
systemctl stop docker.socket docker-tcp.socket docker.service
systemctl reset-failed
systemctl start docker.socket docker-tcp.socket docker.service
"""

SETTLED = f"""
systemctl show --property=StatusText {AGENT} | grep -q '=enforce: ' &&
dockerd-guard diff && [ ! -e {STATE}/intent.json ]
"""

LOOK = r"""
import json, os, re, subprocess
out = lambda line: subprocess.run(line, shell=True, capture_output=True, text=True).stdout
temporary = lambda: set(out("find /etc /var/lib/dockerd-guard -name '.dockerd-guard.*'").split())
before = temporary()
files = {}
for top in ("/etc/systemd/system", "/etc/docker"):
    for directory, _, names in os.walk(top):
        if "docker" in directory:
            files[directory] = ""
        for name in names:
            path = os.path.join(directory, name)
            if ("docker" in path or "guard" in name) and name != "key.json" and not os.path.islink(path):
                files[path] = open(path).read()
show = lambda unit, *names: out(f"systemctl show {unit} -p " + ",".join(names))
command = re.sub(r"; ignore_errors.*", "", show("docker.service", "ExecStart"))
print(json.dumps({
    "files": files,
    "loaded": [command, show("docker.service", "DropInPaths"),
               *(show(unit, "Listen", "DropInPaths") for unit in ("docker.socket", "docker-tcp.socket"))],
    "listening": sorted(set(re.findall(r"LISTEN +\d+ +\d+ +(\S+:\d+|/run/docker.sock) .*dockerd", out("ss -ltxnp")))),
    "active": [show(unit, "ActiveState").strip() for unit in ("docker.service", "docker.socket", "docker-tcp.socket")],
    # The agent that looks on may be writing one just now, under a name that it never uses again.
    "left": sorted(before & temporary()),
    "intent": os.path.exists("/var/lib/dockerd-guard/intent.json"),
}))
"""


class Standing(NamedTuple):
    """How a host stands: files by path (directories too), what systemd has loaded, where dockerd
    listens, which units are active, temporary files, and whether there is an intent."""

    files: Mapping[str, str]
    loaded: tuple[str, ...]
    listening: tuple[str, ...]
    active: tuple[str, ...]
    left: tuple[str, ...]
    intent: bool


def prepare(machine: Machine) -> None:
    """Have the agent stop where it is told, and stay down then; and a container that must not notice."""
    assert crash_points.__file__ is not None
    machine.run(f"systemctl stop {AGENT}")
    machine.copy_in(Path(crash_points.__file__), f"{MODULES}/crash_points.py")
    machine.write(f"{MODULES}/crash_points.pth", "import crash_points\n")
    machine.write(f"/run/systemd/system/{AGENT}.d/test.conf", "[Service]\nRestart=no\n")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl daemon-reload; systemctl reload docker")
    machine.start_container()


def open_up(machine: Machine) -> None:
    """Take every trace of a correction away, and let the API be open; the agent does not run."""
    machine.run(RESET, check=False)
    for path, text in DRIFT.items():
        machine.write(path, text)
    machine.run(OPEN_UP)


def standing(machine: Machine) -> Standing:
    """How it stands."""
    seen = json.loads(machine.run(["python3", "-c", LOOK]).out)
    return Standing(seen["files"], tuple(seen["loaded"]), tuple(seen["listening"]), tuple(seen["active"]),
                    tuple(seen["left"]), seen["intent"])


def start_agent(machine: Machine, policy: str, order: str = "") -> None:
    """Start the agent by a policy, with an order to stop at a step."""
    machine.write(POLICY, policy)
    if order:
        machine.write(crash_points.ORDER_FILE, f"{order}\n")
    else:
        machine.remove(crash_points.ORDER_FILE)
    machine.run(f"systemctl start {'--no-block' if order else ''} {AGENT}")


def settled(machine: Machine) -> None:
    """Wait until the host complies and the agent has nothing more to do."""
    wait_for(lambda: machine.run(SETTLED, check=False).status == 0, "agent at rest on a host that complies")


def steps(machine: Machine) -> tuple[str, ...]:
    """The steps of one undisturbed correction of the drift; the host complies then."""
    open_up(machine)
    start_agent(machine, ENFORCE, "kill 0")
    settled(machine)
    machine.run(f"systemctl stop {AGENT}; journalctl --sync")
    said = [entry["MESSAGE"] for entry in machine.journal(
        "--unit", AGENT, f"_SYSTEMD_INVOCATION_ID={machine.properties(AGENT, 'InvocationID')['InvocationID']}")]
    return tuple(message.partition(": ")[2] for message in said if message.startswith("step "))


class Ends(NamedTuple):
    """The two ways in which a host may stand."""

    before: Standing
    after: Standing


def ends(machine: Machine) -> tuple[Ends, tuple[str, ...]]:
    """How the host stands with the drift and without, and the steps between."""
    open_up(machine)
    before = standing(machine)
    taken = steps(machine)
    return Ends(before, standing(machine)), taken


def between(now: Standing, known: Ends) -> list[str]:
    """What is neither as before nor as after, though the agent has not yet corrected anew.

    Files and what systemd has of them are of one kind. Dockerd may have yet to be restarted by new files,
    but never runs by new ones where the old are back.
    """
    is_new = now.files == known.after.files
    wanted, others = (known.after, (known.before,)) if is_new else (known.before, ())
    wrong = []
    if not is_new:
        wrong += [f"{path}: {now.files.get(path)!r}" for path in sorted({*now.files, *wanted.files})
                  if now.files.get(path) != wanted.files.get(path)]
    if now.loaded != wanted.loaded:
        wrong.append(f"loaded: {now.loaded}")
    if now.listening not in (wanted.listening, *(other.listening for other in others)):
        wrong.append(f"listening: {now.listening}")
    if now.active not in (wanted.active, *(other.active for other in others)):
        wrong.append(f"active: {now.active}")
    if now.left:
        wrong.append(f"left behind: {now.left}")
    return wrong


def hold_at(machine: Machine, step: str) -> None:
    """Let the agent correct until it is about to take this step, and there it stays."""
    start_agent(machine, ENFORCE, f"hold {step}")
    # The last step that it told of is the one that it is held at.
    line = f"journalctl --unit={AGENT} --output=cat --boot | grep '^step ' | tail -n 1"
    wait_for(lambda: _is_step(machine.run(line, check=False).out, step), f"step {step}")


def _is_step(told: str, step: str) -> bool:
    number, _, what = told.removeprefix("step ").strip().partition(": ")
    return number == step or what.startswith(step)


def try_point(machine: Machine, known: Ends, step: str, *, cut: bool) -> list[str]:
    """Stop at this step, by SIGKILL or by a power cut, and come back; what is wrong then, in words."""
    open_up(machine)
    container = 0 if cut else machine.container_pid()
    if cut:
        hold_at(machine, step)
        machine.power_cut()
        machine.on_disk(f"rm -f root{crash_points.ORDER_FILE}; cat > root{POLICY}", input=OBSERVE)
        machine.power_on()
        wait_for(lambda: machine.is_active(AGENT), "agent after the boot")
    else:
        start_agent(machine, ENFORCE, f"kill {step}")
        wait_for(lambda: machine.properties(AGENT, "ActiveState")["ActiveState"] == "failed", f"step {step}")
        machine.run(f"systemctl reset-failed {AGENT}")
        start_agent(machine, OBSERVE)
    # The agent leaves a start that is under way to itself, and a busy host takes seconds over it.
    wait_for(lambda: machine.properties("docker.service", "ActiveState")["ActiveState"] not in (
        "activating", "deactivating"), "dockerd that has started or failed")
    wrong = between(standing(machine), known)
    if not machine.socket_answers():
        wrong.append("dockerd does not answer")
    machine.write(POLICY, ENFORCE)
    machine.run(f"systemctl reload {AGENT}")
    settled(machine)
    now = standing(machine)
    if now != known.after:
        wrong += [f"settled: {name}: {value}" for name, value in now._asdict().items()
                  if value != known.after._asdict()[name]]
    if not cut and machine.container_pid() != container:
        wrong.append("the container was restarted")
    return wrong
