"""Machines that judge: layouts in, mismatches out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.differential.compare import Facts, Mismatch, compare
from tests.differential.layout import Layout
from tests.machines import host
from tests.machines.machine import Machine

HERE = Path(__file__).parent
FACT_FILES = ("/etc/os-release", "/etc/passwd", "/etc/machine-id", "/etc/hostname", "/etc/machine-info")


class Verdict(NamedTuple):
    """One layout judged; `real` is all that the machine said. Nothing is `compared` that systemd leaves to chance."""

    number: int
    layout: Layout
    mismatches: list[Mismatch]
    real: dict[str, Any]
    compared: bool = True


class Bench:
    """A machine with the judge in it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.copy_in(recorder(), "/root/recorder")
        machine.copy_in(HERE / "judge.py", "/root/judge.py")
        machine.run(["chmod", "755", "/root/recorder"])
        files = {}
        for path in FACT_FILES:
            if machine.exists(path):
                files[path] = machine.read(path).encode()
        dockerd = machine.run(["dpkg-query", "--show", "--showformat=${Version}", "docker.io"]).out
        systemd = machine.run(["systemctl", "--version"]).out.split()[1]
        self.facts = Facts(int(systemd), dockerd, files)

    @classmethod
    def boot(cls, release: str) -> Self:
        """Boot a machine of a release for this alone."""
        return cls(Machine.boot(release))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.machine.close()

    def judge(self, layouts: Iterable[tuple[int, Layout]]) -> Iterator[Verdict]:
        """Give each layout's verdict, in the order they come in."""
        known = dict(layouts)
        judge = self.machine.popen(["python3", "/root/judge.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with judge as process:
            assert process.stdin is not None and process.stdout is not None

            def feed() -> None:
                assert process.stdin is not None
                for number, layout in known.items():
                    process.stdin.write(json.dumps({"id": number, **layout.to_json()}) + "\n")
                process.stdin.close()

            feeding = threading.Thread(target=feed, daemon=True)
            feeding.start()
            missing = set(known)
            for line in process.stdout:
                real = json.loads(line)
                number = real["id"]
                missing.discard(number)
                found = compare(known[number], self.facts, real)
                yield Verdict(number, known[number], found or [], real, found is not None)
            if missing:
                raise RuntimeError(f"the judge ended without a word on {sorted(missing)[:10]}")


def recorder() -> Path:
    """What stands in dockerd's place, compiled once for each version of it and kept in the cache."""
    source = HERE / "recorder.c"
    version = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    made = host.cache_directory() / "differential" / f"recorder-{version}"
    if not made.exists():
        host.prepare("gcc", "libc6-dev")
        made.parent.mkdir(parents=True, exist_ok=True)
        draft = made.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        subprocess.run(["cc", "-static", "-O1", "-o", str(draft), str(source)], check=True)
        draft.rename(made)
    return made
