"""`python3 -m tests.bench dist/*.deb`: run all measurements on one machine, print a table, and keep the results."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import inside
from tests.bench.table import Row, text
from tests.machines import host, image
from tests.machines.machine import Machine
from tests.support import speed

PEERS = ("monit", "ansible-core", "puppet-agent", "aide", "lynis")
"""Debian packages. systemdlint is from PyPI; `make bench` installs it."""

COUNTS = {"cold": 20, "audit": 5, "roots": 5, "event": 1000, "reload": 20, "restart": 10, "refused": 10,
          "memory": 10_000, "idle": 600, "growth": 10}
QUICK = {"cold": 5, "audit": 2, "roots": 2, "event": 40, "reload": 5, "restart": 2, "refused": 2, "memory": 200,
         "idle": 30, "growth": 3}
"""Samples for each row; passes for memory, seconds for idle."""

ROW_TIMEOUT_S = 7200


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(COUNTS)}; all by default")
    parser.add_argument("--release", choices=image.RELEASES, default="bookworm")
    parser.add_argument("--quick", action="store_true", help="few samples: to see that it works")
    parser.add_argument("--systemdlint", type=Path, required=True, metavar="DIR",
                        help="where pip has installed that (--target)")
    parser.add_argument("--results", type=Path, default=host.cache_directory() / "bench",
                        help="where results are kept (default: %(default)s)")
    parser.add_argument("--against", type=Path, help="compare with this one alone (default: with the last ones kept)")
    arguments = parser.parse_args()
    counts = QUICK if arguments.quick else COUNTS
    arguments.results.mkdir(parents=True, exist_ok=True)
    name = f"{arguments.release}{'-quick' if arguments.quick else ''}.json"
    before = [arguments.against] if arguments.against else sorted(arguments.results.glob(f"*Z-{name}"))
    earlier = {row.name: row for path in before for row in _rows(json.loads(path.read_text()))}
    host.prepare_machines()
    result: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "release": arguments.release,
                              "package": arguments.package.name, "processors": os.cpu_count(),
                              "kernel": platform.release(), "load": {}, "rows": []}
    kept = arguments.results / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}"
    with Machine.boot(arguments.release, package=arguments.package, debian=PEERS) as machine:
        _copy_in(machine, arguments.systemdlint)
        machine.run("python3 /root/inside.py prepare")
        machine.start_container()
        result["versions"] = _versions(machine)
        for row in arguments.rows or counts:
            start, load = time.monotonic(), os.getloadavg()[0]
            print(f"{row} ...", end="", file=sys.stderr, flush=True)
            if row == "refused":
                found = [_refused(arguments.release, arguments.package, counts[row])]
            else:
                done = machine.run(["python3", "/root/inside.py", row, str(counts[row])], timeout=ROW_TIMEOUT_S)
                found = [json.loads(line) for line in done.out.splitlines()]
            print(f" {time.monotonic() - start:.0f} s", file=sys.stderr)
            result["load"][row] = load
            result["rows"] += found
            kept.write_text(json.dumps(result, indent=1))
    print(f"Debian {arguments.release}, {result['versions']}; {result['processors']} processors, kernel "
          f"{result['kernel']}; load of the host before each row: "
          f"{min(result['load'].values()):.1f} to {max(result['load'].values()):.1f}")
    print(text(list(_rows(result)), earlier))
    print(f"Kept as {kept}; `was` is to the last one before, of {len(before)}.")
    return 0


def _refused(release: str, package: Path, rounds: int) -> dict[str, Any]:
    """Measure the row that needs a client outside, on a machine of its own."""
    with Machine.boot(release, package=package) as machine:
        times = speed.measure(machine, rounds)
    by_hand = speed.WAYS[-1].name
    return {"name": "refused", "says": "From the write that closes an open API to the first packet refused outside.",
            "unit": "ms", "samples": {name: [1000 * each for each in times[name]]
                                      for name in (by_hand, *(name for name in times if name != by_hand))}}


def _rows(result: dict[str, Any]) -> Iterator[Row]:
    return (Row(**row) for row in result["rows"])


def _versions(machine: Machine) -> str:
    shown = machine.run(["dpkg-query", "--show", "--showformat=${Package} ${Version}, ", "dockerd-guard", "systemd",
                         "docker.io", "monit", "ansible-core", "puppet-agent", "aide", "lynis"]).out
    return shown.rstrip(", ")


def _copy_in(machine: Machine, systemdlint: Path) -> None:
    machine.copy_in(Path(inside.__file__), "/root/inside.py")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(systemdlint, "systemdlint")
    draft = machine.box.directory / "systemdlint.tar"
    draft.write_bytes(packed.getvalue())
    machine.copy_in(draft, "/root/systemdlint.tar")
    machine.run("tar -C /opt -xf /root/systemdlint.tar")


if __name__ == "__main__":
    sys.exit(main())
