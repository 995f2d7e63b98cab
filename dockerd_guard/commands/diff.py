"""The verb `diff`: what a correction would change, and what it would cost. Changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dockerd_guard.agent.reconcile import assess, by_hand
from dockerd_guard.apply.context import HostClock
from dockerd_guard.apply.state_files import StateFiles
from dockerd_guard.commands._common import FOUND, OK, UNANSWERED, Look, each, misses, require_policy, root_name
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.instant import Instant
from dockerd_guard.observe.engine import container_names
from dockerd_guard.observe.kernel import HostKernel, may_ask
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan.assessment import Assessment
from dockerd_guard.plan.gate import Cost
from dockerd_guard.plan.memory import Memory
from dockerd_guard.report import json_output, plan
from dockerd_guard.rules.judge import judge
from dockerd_guard.systemd.manager import Manager, Unavailable

if TYPE_CHECKING:
    from types import SimpleNamespace


def assessed(look: Look, findings: tuple[Finding, ...]) -> Assessment:
    """What `fix` would do now. Nothing outside the root is read for --root."""
    is_live = look.seen.loaded is not None
    memory = StateFiles().load() if is_live else Memory()
    now = HostClock().now() if is_live else Instant(datetime.now(UTC))
    memory = memory._replace(intent=None)
    with _connected(is_live) as manager:
        return assess(look.seen, findings, require_policy(look.policy), memory, now, HostKernel(), manager, by_hand)[0]


@contextlib.contextmanager
def _connected(is_live: bool) -> Iterator[Manager | None]:
    """systemd of this host, None where it cannot be reached."""
    with contextlib.ExitStack() as connection:
        manager = None
        if is_live:
            with contextlib.suppress(Unavailable):
                manager = connection.enter_context(Manager())
        yield manager


def _containers(seen: Observation) -> tuple[str, ...]:
    layer = seen.listening.layer if seen.listening is not None else None
    address = next((binding.address for binding in layer.bindings if binding.address.startswith("unix://")), None
                   ) if layer is not None else None
    with _connected(address is not None) as manager:
        return container_names(address) if address is not None and may_ask(seen, manager) else ()


def exit_code(found: Assessment) -> int:
    """As that of `lint`: where nothing is to be changed, a declared socket that is missing counts all the same."""
    if found.plan.changes or found.plan.obstacles or found.decision.required.anything or misses(found.findings):
        return FOUND
    return UNANSWERED if found.seen.troubles else OK


def run(options: SimpleNamespace) -> int:
    """Print the changes for each root; returns the exit code."""
    def show(look: Look) -> int:
        found = assessed(look, judge(look.seen, require_policy(look.policy)))
        containers = _containers(found.seen) if found.decision.cost is Cost.CONTAINERS else ()
        if options.format == "json":
            print(json_output.dump(plan.diff_json(found, containers), root=root_name(options, look)))
        else:
            print(plan.diff_text(found, containers), end="")
        return exit_code(found)

    return each(options, show, with_policy=True)
