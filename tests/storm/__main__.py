"""`python3 -m tests.storm`: hosts of a fleet that all need a restart, on a real etcd, and without one.

A storm fails if more hosts had a slot at once than there are, by the history of etcd; if a host lost its slot during a
restart; or if the hosts needed more requests than they may.
"""

from __future__ import annotations

import argparse
import bisect
import random
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dockerd_guard.plan.splay import _share
from tests.machines import host, image
from tests.storm.services import EtcdInProcess, EtcdProcess, StormService
from tests.storm.storm import ARRIVAL_S, LONGEST_RESTART_S, THREADS, Outcome, Storm, plans
from tests.support.lock_services import ETCD, RealEtcd

REQUESTS = 12
"""How many requests a host may need, on the average."""

SPLAY_S, SIMULATED_SLOTS = 1800.0, 50


def main() -> int:
    """Returns the exit code: 1 if a storm failed."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.storm", description=__doc__.partition("\n")[0])
    parser.add_argument("--storms", type=int, default=3)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--slots", type=int, default=5)
    parser.add_argument("--simulated", type=int, default=2000, help="hosts without a real etcd; 0 for none")
    parser.add_argument("--seed", type=int, default=None, help="of the first storm; the next one counts up")
    parser.add_argument("--release", choices=image.RELEASES, default="bookworm", help="whose etcd is used")
    options = parser.parse_args()
    seed = random.randrange(2**31) if options.seed is None else options.seed
    print(f"SEED={seed}", flush=True)
    failed = 0
    if options.simulated:
        failed += _simulated(seed, options.simulated)
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        etcd = RealEtcd(Path(directory), _etcd(options.release))
        try:
            service = EtcdProcess(etcd.url, patch)
            for number in range(seed, seed + options.storms):
                name = f"storm {number}, etcd of {options.release}"
                failed += _storm(name, service, f"storm-{number}", options.slots, number, options.clients, THREADS)
        finally:
            etcd.close()
    print(f"{failed} of {options.storms + 2 * bool(options.simulated)} failed")
    return 1 if failed else 0


def _simulated(seed: int, hosts: int) -> int:
    """Splay alone, slots alone, and both."""
    at = sorted(SPLAY_S * _share(plan.host.id, "policy") for plan in plans(str(seed), hosts))
    most = max(bisect.bisect(at, begin + LONGEST_RESTART_S) - number for number, begin in enumerate(at))
    print(f"simulated, splay of {SPLAY_S / 60:.0f} min: {hosts} hosts, at most {most} of restarts of "
          f"{LONGEST_RESTART_S:.0f} s at once", flush=True)
    failed = 0
    for name, arrival_s in (("slots", ARRIVAL_S), ("slots and splay", SPLAY_S)):
        with pytest.MonkeyPatch.context() as patch:
            service = EtcdInProcess(patch)
            failed += _storm(f"simulated, {name}", service, "simulated", SIMULATED_SLOTS, seed, hosts, 1, arrival_s)
            service.close()
    return failed


def _storm(  # noqa: PLR0913, PLR0917 -- what a storm is
    name: str, service: StormService, group: str, slots: int, seed: int, hosts: int, threads: int,
    arrival_s: float = ARRIVAL_S,
) -> int:
    began = time.monotonic()
    outcome = Storm(service, group, slots, plans(str(seed), hosts, arrival_s), threads).run()
    print(f"{name}: {hosts} hosts, {outcome.killed} killed; at most {outcome.most_at_once} of {slots} slots at once; "
          f"{outcome.requests:.1f} requests a host, at most {outcome.most_requests}; {outcome.seconds:.0f} s, "
          f"{outcome.ideal_s:.0f} s without waits; played in {time.monotonic() - began:.0f} s", flush=True)
    problems = _problems(outcome, slots, hosts)
    for problem in problems:
        print(f"FAILED, seed {seed}: {problem}", flush=True)
    return bool(problems)


def _problems(outcome: Outcome, slots: int, hosts: int) -> list[str]:
    found = []
    if outcome.most_at_once > slots:
        found.append(f"{outcome.most_at_once} slots were taken at once")
    if outcome.lost:
        found.append(f"slots were lost during a restart: {', '.join(outcome.lost[:10])}")
    if outcome.served != hosts:
        found.append(f"{hosts - outcome.served} hosts were not restarted")
    if outcome.requests > REQUESTS:
        found.append(f"{outcome.requests:.1f} requests a host")
    return found


def _etcd(release: str) -> str:
    """The program of a release, which is installed in a layer of its test machines."""
    if ETCD is not None:
        return ETCD
    host.prepare_machines()
    return str(image.layers(release, debian=("etcd-server",))[0] / "usr/bin/etcd")


if __name__ == "__main__":
    sys.exit(main())
