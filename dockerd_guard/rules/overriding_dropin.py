"""DG303: a drop-in that sorts after ours and wins."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding, Fix
from dockerd_guard.model.names import DROPIN_NAME
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.systemd.loading import Unit

CODE = "DG303"
TITLE = "a drop-in that sorts after ours and wins"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """One finding for each setting of ours that a later file gives again."""
    yield from _after(seen.configured.service.unit, ("ExecStart",), policy)
    for socket in seen.configured.sockets:
        yield from _after(socket.unit, ("ListenStream", "ListenDatagram", "ListenSequentialPacket"), policy)


def _after(unit: Unit, keys: tuple[str, ...], policy: Policy | None) -> Iterator[Finding]:
    ours = next((place for place, path in enumerate(unit.dropins) if path.endswith(f"/{DROPIN_NAME}")), None)
    if ours is None:
        return
    later = frozenset(unit.dropins[ours + 1 :])
    fix: Fix | None = "unsafe" if policy is not None and policy.correct.foreign_files else None
    told: set[str] = set()
    for setting in unit.settings:
        file = setting.location.file
        if file in later and setting.key in keys and file not in told:
            told.add(file)
            yield Finding(
                CODE,
                "error",
                f"{setting.key}= here overrules {unit.dropins[ours]}: its file name sorts after ours",
                CONFIGURED,
                setting.location,
                fix,
            )
