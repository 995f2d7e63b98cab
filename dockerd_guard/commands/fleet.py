"""The verb `fleet`: which hosts of the group restart dockerd, which wait, and what stopped the group."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from dockerd_guard.apply.state_files import Busy, StateFiles, exclusive
from dockerd_guard.commands._common import FOUND, OK, Unanswerable
from dockerd_guard.fleet.lock import LockError
from dockerd_guard.nethelper.fleet_client import FleetClient, local_client
from dockerd_guard.plan.memory import FleetMemory
from dockerd_guard.policy.model import POLICY_FILE, Fleet, PolicyError
from dockerd_guard.policy.reader import load_policy
from dockerd_guard.report import fleet as report
from dockerd_guard.report import json_output

if TYPE_CHECKING:
    from types import SimpleNamespace

SHOW, RESUME = "show", "resume"
ACTIONS = (SHOW, RESUME)

AGENT_WAIT_S = 60.0
"""How long to wait for an agent that is correcting the host."""


def run(options: SimpleNamespace) -> int:
    """Show the group, or end its stop. Returns the exit code: 1 if the group is stopped."""
    if os.geteuid() != 0:
        raise Unanswerable("fleet reads the private key of this host for the lock service: run it as root")
    state = StateFiles()
    try:
        fleet = load_policy(options.policy or POLICY_FILE, require_root_owned=True).correct.fleet
        if fleet is None:
            raise Unanswerable("the policy has no `correct.fleet`: this host shares no lock with others")
        with contextlib.closing(local_client()) as client:
            if options.action == RESUME:
                with exclusive(state.directory, AGENT_WAIT_S):
                    resume(fleet, client, state)
            return show(fleet, client, state.load().fleet, options.format)
    except LockError as error:
        raise Unanswerable(f"{error.reason}. Next: {error.next_step}") from None
    except OSError as error:
        raise Unanswerable(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None
    except (Busy, PolicyError) as error:
        raise Unanswerable(str(error)) from None


def resume(fleet: Fleet, client: FleetClient, state: StateFiles) -> None:
    """End the stop of the group, and release the slot that this host has kept. Raises LockError and OSError."""
    memory = state.load()
    client.resume(fleet, memory.fleet.slot if memory.fleet.is_kept else None)
    known = memory.fleet._replace(to_stop="", refusal=None)
    state.save(memory._replace(fleet=known._replace(slot=None, is_kept=False) if known.is_kept else known))


def show(fleet: Fleet, client: FleetClient, here: FleetMemory, output_format: str) -> int:
    """Print the state of the group. Returns the exit code. Raises LockError."""
    found = client.state(fleet)
    if output_format == "json":
        print(json_output.dump(report.to_json(fleet, found, here)))
    else:
        print("\n".join(report.lines(fleet, found, here)))
    return FOUND if found.stop is not None or here.is_kept or here.to_stop else OK
