"""DG303: a drop-in that sorts after ours and wins."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.model.finding import Finding
from dockerd_guard.model.names import DROPIN_NAME
from dockerd_guard.observe.observation import CONFIGURED, Observation
from dockerd_guard.policy.model import Policy
from dockerd_guard.rules._common import fix_for_foreign_file
from dockerd_guard.systemd.loading import Unit

CODE = "DG303"
TITLE = "a drop-in that sorts after ours and wins"


def check(seen: Observation, policy: Policy | None) -> Iterator[Finding]:
    """Yield one finding for each drop-in that overrides a setting of the drop-in of dockerd-guard."""
    yield from _overrides(seen.configured.service.unit, ("ExecStart",), policy)
    for socket in seen.configured.sockets:
        yield from _overrides(socket.unit, ("ListenStream", "ListenDatagram", "ListenSequentialPacket"), policy)


def _overrides(unit: Unit, keys: tuple[str, ...], policy: Policy | None) -> Iterator[Finding]:
    own = next((index for index, path in enumerate(unit.dropins) if path.endswith(f"/{DROPIN_NAME}")), None)
    if own is None:
        return
    later = frozenset(unit.dropins[own + 1 :])
    reported: set[str] = set()
    for setting in unit.settings:
        file = setting.location.file
        if file in later and setting.key in keys and file not in reported:
            reported.add(file)
            yield Finding(
                CODE,
                "error",
                f"{setting.key}= here overrides {unit.dropins[own]}: the file name sorts after {DROPIN_NAME}",
                CONFIGURED,
                setting.location,
                fix_for_foreign_file(policy),
            )
