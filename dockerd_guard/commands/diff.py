"""The verb `diff`: the changes and the cost of a correction. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.commands._common import FOUND, OK, Look, each, require_policy, root_name
from dockerd_guard.nethelper.local import LocalNetwork
from dockerd_guard.observe.engine import container_names
from dockerd_guard.plan.assessment import Records, api_addresses, assess
from dockerd_guard.plan.gate import Cost
from dockerd_guard.report import json_output, plan

if TYPE_CHECKING:
    from argparse import Namespace


def run(options: Namespace) -> int:
    """Print the changes for each root. Returns the exit code."""
    def show(look: Look) -> int:
        # With --root nothing outside the root is read.
        records = StateFiles().records() if look.seen.loaded is not None else Records()
        found = assess(look.seen, require_policy(look.policy), records, LocalNetwork().ask)
        stops = found.cost is Cost.CONTAINERS
        containers = tuple(name for address in api_addresses(look.seen)[:1] if stops
                           for name in container_names(address))
        if options.format == "json":
            print(json_output.dump(plan.diff_json(found, containers), root=root_name(options, look)))
        else:
            print(plan.diff_text(found, containers), end="")
        return FOUND if found.plan.changes or found.plan.obstacles or found.actions.anything else OK

    return each(options, show, with_policy=True)
