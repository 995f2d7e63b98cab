"""Each invariant that the simulation checks is reported when the code that keeps it is broken.

The histories are short, and break nothing otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from dockerd_guard.apply import apply, verify
from dockerd_guard.apply.context import Context
from dockerd_guard.apply.files import HostFiles
from dockerd_guard.apply.preflight import Preflight
from dockerd_guard.apply.rollback import Undone
from dockerd_guard.containment.containment import Containment
from dockerd_guard.model.address import Tls
from dockerd_guard.model.names import SAVED_SUFFIX
from dockerd_guard.observe import live
from dockerd_guard.observe.observation import Observation
from dockerd_guard.plan import backoff, decide, facts, gate
from dockerd_guard.plan.actions import Actions
from dockerd_guard.plan.memory import Memory
from dockerd_guard.policy.model import Policy
from tests.simulation import agent
from tests.simulation.histories import Action
from tests.simulation.run import invariant, play

History = tuple[tuple[str, int], ...]

OBSERVED: History = (("policy", 5), ("override", 1), ("daemon-reload", 0), ("restart", 0))
"""A port is open, under `mode: observe`."""
ENFORCED: History = (*OBSERVED, ("policy", 0))
NEVER: History = (*OBSERVED, ("policy", 2))
"""The same under `restart: never`."""


class Broken(NamedTuple):
    """What is replaced by what, and a history in which that breaks the invariant."""

    invariant: str
    where: Any
    name: str
    by: object
    history: History


def returns(value: object) -> Callable[..., object]:
    return lambda *_, **__: value


def truncated(files: HostFiles, path: str, content: Any, access: Any, put: Any = HostFiles.put) -> None:
    """A write that loses the content of copies."""
    put(files, path, b"" if SAVED_SUFFIX in path else content, access)


def not_probed(seen: Observation, _: object) -> Observation:
    """A statement about the TLS of a socket that rests on nothing."""
    if seen.listening is None:
        return seen
    layer = seen.listening.layer
    bindings = tuple(binding._replace(tls=Tls.MUTUAL) for binding in layer.bindings)
    return seen._replace(listening=seen.listening._replace(layer=layer._replace(bindings=bindings)))


def late(policy: Policy, service_type: str, context: Context) -> verify.Verification:
    """A verification without an end in reach."""
    context.clock.sleep(500)
    return verify.verify(policy, service_type, context)


BROKEN = (
    Broken("I1", gate, "what_stops", returns(""), (("live-restore in file only", 0), ("later", 1))),
    Broken("I2", Memory, "with_restart", lambda memory, _: memory,
           (("policy", 6), ("policy", 0)) * 4),
    Broken("I2", gate, "_delay_s", returns(0.0), (("spread", 0),)),
    Broken("I2", decide, "needs_slot", returns(False), (("fleet", 5),)),
    Broken("I3", apply, "undo", returns(Undone((), ())), (("next start", 0), ("later", 3))),
    Broken("I4", Preflight, "problems", lambda self, **_: tuple(self.refused()), NEVER),
    Broken("I4", facts, "socket_commands", returns(()),
           (("policy", 5), ("socket unit", 3), ("daemon-reload", 0), ("restart", 4), ("socket unit", 5),
            ("policy", 0))),
    Broken("I5", HostFiles, "put", truncated, (("late drop-in", 1), ("later", 2))),
    Broken("I6", live, "with_probes", not_probed, OBSERVED),
    Broken("I7", Containment, "_by_nftables", returns(None), NEVER),
    Broken("I8", backoff, "FREE_REPEATS", 0, (*ENFORCED, ("own drop-in", 1))),
    Broken("I9", decide, "inputs", returns("the same"), (("next start", 0), ("later", 0), ("daemon.json", 6))),
    Broken("I10", verify, "_problem", returns(""), (("next start", 1), ("later", 1))),
    Broken("I11", facts, "pending_changes", lambda seen, base, *_, **__: base.layer.argv,
           (*NEVER, ("override", 6), ("daemon-reload", 0), ("policy", 0))),
    Broken("I12", apply, "verify", late, ENFORCED),
    Broken("I13", agent, "release", returns(()), (*NEVER, ("remove package", 0))),
    Broken("I14", decide, "required_actions", returns(Actions(reload=True)), ENFORCED),
)


@pytest.mark.parametrize("history", [
    # Seed 9100353: four starts within 3/1h, and somebody restarts dockerd under 1/1h.
    (("dies again", 7759), ("policy", 8440), ("silent with containers", 3293), ("meanwhile", 4129)),
    # Seed 9110035: an undone correction has restored a drop-in, and somebody overwrites it.
    (("meanwhile", 9631), ("meanwhile", 7477), ("port in use", 5556)),
    # Seed 9900080: docker.socket lists a port that it does not hold, and metrics-addr has the same.
    (("daemon.json", 8929), ("override", 5049), ("socket unit", 8199), ("fleet", 5769)),
    # Seed 9900274: it is this host's turn, the disk fails, and somebody restarts dockerd meanwhile.
    (("disk", 8414), ("spread", 3013), ("meanwhile", 831), ("disk", 1671)),
    # Seed 13000168: the turn has come, the restart fails and is undone, and a file that it depends on changes.
    (("live-restore in file only", 949), ("spread", 1543), ("interference", 5969), ("later", 5043)),
    # Seed 13000271: the agent is killed in the middle of an action, after it has edited daemon.json.
    (("daemon.json", 5561), ("late link in force", 3571), ("later", 2705), ("kill", 8349), ("war", 3203)),
    # Seed 13000276: two different drop-ins have the same size.
    (("disk", 8297), ("next start", 4852), ("late link", 7797), ("override", 4786), ("daemon-reload", 1723),
     ("override", 4007)),
    # Seeds 9900128 and 9900472: dockerd dies when a pass begins, which then starts it, without a slot.
    (("dockerd faults", 6987), ("fleet", 4264)),
    (("dockerd faults", 2752), ("fleet", 9856), ("override", 1083)),
])
def test_what_is_no_violation(history: History) -> None:
    assert play([Action(name, variant) for name, variant in history]).violations == ()


@pytest.mark.parametrize("history", [
    # Seed 12000188: somebody starts dockerd, the correction loads a drop-in that was not loaded then.
    (("daemon.json", 4081), ("pending failure", 6131), ("meanwhile", 3855), ("later", 4180), ("daemon.json", 7763),
     ("restart", 2585), ("daemon.json", 1149)),
    # A drop-in is there only while systemd loads its units.
    (("meanwhile", 16889), ("later", 2)), (("meanwhile", 9227), ("later", 2)),
])
def test_what_was_loaded_unseen_is_not_run(history: History) -> None:
    assert play([Action(name, variant) for name, variant in history]).violations == ()


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.invariant)
def test_a_broken_invariant_is_reported(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [Action(name, variant) for name, variant in broken.history]
    assert play(history).violations == ()
    monkeypatch.setattr(broken.where, broken.name, broken.by)
    found = [invariant(each) for each in play(history).violations]
    assert broken.invariant in found, found
