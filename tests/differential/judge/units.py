"""systemd's answer: the units as PID 1 has loaded them, and how it starts dockerd."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from pathlib import Path
from typing import Any

from tests.differential.judge.files import put, staged
from tests.differential.judge.machine import RECORDS, remove, run

SEARCH_PATH = (
    "/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
    "/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system",
    "/run/systemd/system.attached", "/run/systemd/generator", "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system", "/run/systemd/generator.late",
)
NOT_OURS = ("/run/systemd", "/run/dbus", "/run/udev", "/run/user", "/run/host", "/run/differential")
MADE_BY_UNITS = (stat.S_IFSOCK, stat.S_IFIFO)
RECORD_TIMEOUT_SECONDS = 2
PROPERTIES = ("Id", "Names", "LoadState", "LoadError", "FragmentPath", "DropInPaths", "ActiveState", "SubState",
              "Result", "Triggers", "TriggeredBy", "Type", "ExecMainStatus")


def unit_names(layout: dict[str, Any]) -> list[str]:
    found = {"docker.service", "docker.socket"}
    for path in (*layout["files"], *layout["links"]):
        directory, _, name = path.rpartition("/")
        if directory in SEARCH_PATH and re.fullmatch(r"[A-Za-z0-9:_.\\@-]+\.(service|socket)", name):
            found.add(name)
    return sorted(found)


def show(names: list[str]) -> dict[str, dict[str, str]]:
    """Return the units' properties; those of a unit that systemctl cannot show are missing."""
    found = {}
    text = run("systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *names).stdout
    blocks = text.split("\n\n")
    if len(blocks) != len(names):
        blocks = [run("systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", name).stdout for name in names]
    for name, block in zip(names, blocks, strict=True):
        found[name] = dict(line.partition("=")[::2] for line in block.splitlines())
    return found


def active(units: dict[str, dict[str, str]]) -> list[str]:
    """Return the units that are not known to be inactive or failed."""
    return [name for name, unit in units.items() if unit.get("ActiveState") not in {"inactive", "failed"}]


def ask_systemd(layout: dict[str, Any]) -> dict[str, Any]:
    names = unit_names(layout)
    made: list[str] = []
    try:
        put(staged(layout), made)
        run("systemctl", "daemon-reload")
        units = show(names)
        if left := [name for name in active(units) if "ActiveState" in units[name]]:
            # A reload does not change active units: their sockets would be those of the previous tree.
            raise RuntimeError(f"{left} are still active from the previous tree")
        # D-Bus messages cannot contain invalid UTF-8 (`\\xff` in ExecStart=): systemctl then shows nothing.
        service = units.get("docker.service", {})
        services = set(service.get("Names", "").split()) | {"docker.service"}
        triggers = set(service.get("TriggeredBy", "").split())
        sockets = []
        for name in names:
            unit = units.get(name, {})
            if name.endswith(".socket") and unit.get("Id") not in sockets and (
                    services & set(unit.get("Triggers", "").split()) or unit.get("Id") in triggers):
                sockets.append(unit["Id"])
        for name in sockets:
            run("systemctl", "start", "--", name)
        done = run("systemctl", "start", "docker.service")
        after = show(["docker.service", *sockets])
        service = after.get("docker.service", {})
        return {"state": units.get("docker.service", {}).get("LoadState"), "error": service.get("LoadError"),
                "sockets": {name: after.get(name, {}) for name in sockets}, "service": service,
                "stderr": done.stderr.strip(), "status": done.returncode, "records": records(not done.returncode)}
    finally:
        # Also those that were not started here: units that require them start them.
        # One by one: systemctl 262 stops none of several if one cannot be stopped.
        for name in active(show(names)):
            run("systemctl", "stop", "--", name)
        run("systemctl", "reset-failed")
        for path in reversed(made):
            if os.path.islink(path) or not os.path.isdir(path):
                remove(path)
            else:
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        for each in (*RECORDS.iterdir(), *created_by_units()):
            remove(str(each))


def created_by_units() -> list[Path]:
    """Return sockets and FIFOs that units created. Another file mode would make the next start fail."""
    found = (Path(directory, name) for directory, _, names in os.walk("/run") for name in names
             if not directory.startswith(NOT_OURS))
    return [path for path in found if stat.S_IFMT(path.lstat().st_mode) in MADE_BY_UNITS]


def records(expected: bool) -> list[dict[str, Any]]:
    """Return the recorder's records of the first start, oldest first. If one is expected, wait for it: with
    Type=simple, systemctl returns before the program runs."""
    deadline = time.monotonic() + RECORD_TIMEOUT_SECONDS
    while expected and not any(RECORDS.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.005)
    found: list[dict[str, Any]] = []
    for directory in sorted(RECORDS.iterdir()):
        deadline = time.monotonic() + 10
        while not (directory / "done").exists():
            if time.monotonic() > deadline:
                raise TimeoutError("the recorder does not end")
            time.sleep(0.005)
        if "/containerd.service" in (directory / "cgroup").read_text():
            continue  # a drop-in in service.d makes a dockerd of that one, too
        environ = text((directory / "environ").read_bytes()).split("\0")[:-1]
        record = {"argv": text((directory / "argv").read_bytes()).split("\0")[:-1],
                  "environ": environ, "sockets": (directory / "sockets").read_text().splitlines(),
                  "program": os.readlink(directory / "program"), "taken": []}
        if f"LISTEN_PID={directory.name.rpartition('-')[2]}" not in environ:
            # Passed to another process, a shell whose child is dockerd. The addresses are in use all the same.
            record["taken"], record["sockets"] = record["sockets"], []
        first = found[0] if found else record
        if invocation(first) == invocation(record):
            found.append(record)
    return found


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def invocation(record: dict[str, Any]) -> str:
    return next((each for each in record["environ"] if each.startswith("INVOCATION_ID=")), "")
