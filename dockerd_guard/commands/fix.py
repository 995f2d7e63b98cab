"""The verb `fix`: a single correction without the agent."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from dockerd_guard.apply.correction import Context, carry_out, queue_manual_fix
from dockerd_guard.apply.rollback import recover
from dockerd_guard.apply.state_files import Busy, StateFiles, exclusive
from dockerd_guard.commands._common import FOUND, OK, Unanswerable
from dockerd_guard.nethelper.local import LocalNetwork
from dockerd_guard.observe.live import observe_host, observer
from dockerd_guard.plan.assessment import assess
from dockerd_guard.policy.model import POLICY_FILE, PolicyError
from dockerd_guard.policy.reader import load_policy
from dockerd_guard.report import json_output, plan
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.systemd.manager import Manager, Refused, Unavailable

if TYPE_CHECKING:
    from argparse import Namespace

AGENT_WAIT_S = 60.0
"""Timeout for a pass of the agent in progress."""


def run(options: Namespace) -> int:
    """Correct the host as far as the policy allows now and print the outcome. Returns the exit code."""
    if os.geteuid() != 0:
        raise Unanswerable("fix writes to /etc and restarts services: run it as root")
    state = StateFiles()
    try:
        policy = load_policy(options.policy or POLICY_FILE, require_root_owned=True)
        with exclusive(state.directory, AGENT_WAIT_S), Manager() as manager, Rootfs() as rootfs:
            if done := recover(state, manager):
                print(done, file=sys.stderr)
            network = LocalNetwork()
            found = assess(observe_host(rootfs, manager), policy, state.records(), network.ask)
            with observer(manager) as observe:
                context = Context(manager, state, observe, network)
                outcome = carry_out(found, context)
                queue_manual_fix(found, outcome, context)
    except (Busy, OSError, PolicyError, Refused, Unavailable, Unreadable) as error:
        raise Unanswerable(str(error)) from None
    if options.format == "json":
        print(json_output.dump(plan.outcome_json(outcome)))
    else:
        print(plan.outcome_text(outcome), end="")
    return OK if outcome.done else FOUND
