"""Machines that run the judge: layouts in, mismatches out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.differential.compare import Facts, Mismatch, compare
from tests.differential.layout import Layout
from tests.machines import host
from tests.machines.machine import Machine

HERE = Path(__file__).parent
TESTS = HERE.parent
FACT_FILES = ("/etc/os-release", "/etc/passwd", "/etc/machine-id", "/etc/hostname", "/etc/machine-info")


class Verdict(NamedTuple):
    """The result for one layout. `real` is the judge's output; not `compared` if systemd's result is random."""

    number: int
    layout: Layout
    mismatches: list[Mismatch]
    real: dict[str, Any]
    compared: bool = True


class Bench:
    """A machine with the judge installed."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.copy_in(recorder(), "/root/recorder")
        machine.copy_in(_judge(), "/root/judge.pyz")
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
        """Boot a machine of a release."""
        return cls(Machine.boot(release))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.machine.close()

    def judge(self, layouts: Iterable[tuple[int, Layout]]) -> Iterator[Verdict]:
        """Yield the verdict of each layout, in the order of completion."""
        known = dict(layouts)
        judge = self.machine.popen(["python3", "/root/judge.pyz"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
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
                raise RuntimeError(f"the judge ended without results for {sorted(missing)[:10]}")


def recorder() -> Path:
    """Return the program that replaces dockerd, compiled once for each version of recorder.c and kept in the cache."""
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


def _judge() -> Path:
    """Return the judge as one file that `python3 FILE` runs (zipapp), kept in the cache."""
    made = host.cache_directory() / "differential" / "judge.pyz"
    made.parent.mkdir(parents=True, exist_ok=True)
    draft = made.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    with zipfile.ZipFile(draft, "w") as archive:
        archive.writestr("__main__.py", "from tests.differential.judge.__main__ import main\nmain()\n")
        for path in (TESTS / "__init__.py", HERE / "__init__.py", *sorted((HERE / "judge").glob("*.py"))):
            archive.write(path, path.relative_to(TESTS.parent))
    draft.rename(made)
    return made
