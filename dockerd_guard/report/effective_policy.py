"""The effective policy with all defaults: as YAML, and in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dockerd_guard.model.address import Scope, Tls, scope_of
from dockerd_guard.policy.keys import keys_in
from dockerd_guard.policy.model import (
    DeclaredSocket,
    Fleet,
    LockKind,
    Mode,
    Policy,
    Restart,
    Unreachable,
    Waiver,
    declared_bindings,
)
from dockerd_guard.policy.values import MAX_DURATION_NUMBER
from dockerd_guard.report.text import clean

_UNITS_US = (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000),
             ("us", 1))

_MODES = {
    Mode.OBSERVE: "drift is reported in the journal, nothing is changed",
    Mode.ENFORCE: "drift is reported in the journal and corrected",
}
_RESTARTS = {
    Restart.LIVE_RESTORE: "only if its containers keep running",
    Restart.ALWAYS: "even if containers stop",
    Restart.NEVER: "never",
}
_TLS = {
    Tls.MUTUAL: "TLS, clients need a certificate",
    Tls.SERVER: "TLS without client certificates",
    Tls.NONE: "without TLS",
}
_CLIENTS = {
    Scope.WILDCARD: "every client that reaches any address of this host",
    Scope.ADDRESS: "every client that reaches this address",
    Scope.LOOPBACK: "every process and user of this host",
}


def as_yaml(policy: Policy) -> str:
    """A policy with every key that has a value, which is read as the same policy. It contains only ASCII."""
    import yaml

    correct = {
        "restart": str(policy.correct.restart),
        **({"window": policy.correct.window.text} if policy.correct.window is not None else {}),
        "budget": f"{policy.correct.budget.restarts}/{duration(policy.correct.budget.per_s)}",
        "splay": duration(policy.correct.splay_s) or "0s",
        "foreign_files": policy.correct.foreign_files,
        "contain": policy.correct.contain,
        **({"fleet": _fleet(policy.correct.fleet)} if policy.correct.fleet is not None else {}),
    }
    values: dict[str, Any] = {
        "version": 1,
        "mode": str(policy.mode),
        "sockets": [_socket(policy, socket) for socket in policy.sockets],
        "socket_unit": {"listen": [listen.value for listen in policy.socket_unit.listen]},
        "tls": {"ca": policy.tls.ca, "cert": policy.tls.cert, "key": policy.tls.key},
        "correct": correct,
        "watch": {"settle": duration(policy.watch.settle_s), "resync": duration(policy.watch.resync_s)},
        "waive": [dict(_values(waiver)) for waiver in policy.waive],
    }
    return str(yaml.safe_dump(values, sort_keys=False, default_flow_style=False, width=float("inf")))


def _fleet(fleet: Fleet) -> dict[str, Any]:
    by_etcd = {"slots": fleet.slots, "lease": duration(fleet.lease_s)} if fleet.lock is LockKind.ETCD else {}
    tls = {word: path for word, path in fleet.tls._asdict().items() if path}
    return {
        "lock": str(fleet.lock), "endpoints": list(fleet.endpoints), "group": fleet.group, **by_etcd,
        **({"tls": tls} if tls else {}), "timeout": duration(fleet.timeout_s), "unreachable": str(fleet.unreachable)}


def _values(waiver: Waiver) -> Iterator[tuple[str, str]]:
    """The keys of a waiver that have a value, and the values as text."""
    for word in keys_in("waive[]"):
        value = getattr(waiver, word)
        if value is not None:
            yield word, str(value)


def _socket(policy: Policy, socket: DeclaredSocket) -> str | dict[str, str]:
    is_tcp = socket.is_tcp or (socket.address == "fd://" and any(
        listen.address.startswith("tcp://") for listen in policy.socket_unit.listen))
    return {"address": socket.address, "tls": str(socket.tls)} if is_tcp else socket.address


def duration(seconds: float) -> str:
    """A duration as the policy reads it, to the microsecond: `100ms`, `1h 30min`."""
    whole, part = divmod(seconds, 1)
    left = int(whole) * 1_000_000 + round(part * 1_000_000)
    parts: list[str] = []
    for unit, unit_us in _UNITS_US:
        number, left = divmod(left, unit_us)
        while number:
            parts.append(f"{min(number, MAX_DURATION_NUMBER)}{unit}")
            number -= min(number, MAX_DURATION_NUMBER)
    return " ".join(parts)


def meaning(policy: Policy) -> Iterator[str]:
    """What a policy requires and permits, line by line, for the terminal."""
    bindings = declared_bindings(policy)
    yield clean(f"{policy.file} is valid.")
    yield f"mode: {policy.mode}: {_MODES[policy.mode]}."
    yield "Docker must listen on these sockets and on no others:"
    for socket in bindings:
        tls = f", {_TLS[socket.tls]}" if socket.is_tcp else ""
        yield clean(f"  {socket.address}{tls}{' (passed by docker.socket)' if socket.is_passed else ''}")
    for socket in bindings:
        if socket.is_tcp and socket.tls is not Tls.MUTUAL:
            yield clean(f"DANGER: {socket.address} gives root to {_CLIENTS[scope_of(socket.address)]}.")
    correct = policy.correct
    yield from _corrections(policy)
    yield f"Foreign files: {'edited or moved aside if needed' if correct.foreign_files else 'not changed'}."
    yield f"Containment: {'an exposure is blocked until it is corrected' if correct.contain else 'off'}."
    yield (f"A change is evaluated after {duration(policy.watch.settle_s)}; everything is read again every "
           f"{duration(policy.watch.resync_s)}.")
    for waiver in policy.waive:
        limits = (f", {word} {value}" for word, value in _values(waiver) if word not in ("rule", "reason"))
        yield clean(f"Accepted: {waiver.rule}{''.join(limits)}: {waiver.reason}")


def _corrections(policy: Policy) -> Iterator[str]:
    correct = policy.correct
    when = "" if policy.mode is Mode.ENFORCE else " (by `dockerd-guard fix` only)"
    limits = ""
    if correct.restart is not Restart.NEVER:
        window = f", during {correct.window.text}" if correct.window is not None else ""
        spread = f", spread over {duration(correct.splay_s)} in a fleet" if correct.splay_s else ""
        limits = f"{window}, at most {correct.budget.restarts} in {duration(correct.budget.per_s)}{spread}"
    yield clean(f"Restarts of dockerd{when}: {_RESTARTS[correct.restart]}{limits}.")
    if (fleet := correct.fleet) is not None and correct.restart is not Restart.NEVER:
        slots = f"{fleet.slots} slot{'s' * (fleet.slots != 1)}" if fleet.lock is LockKind.ETCD else "the slots"
        without = "; none is restarted" if fleet.unreachable is Unreachable.HOLD else "; restarted all the same"
        yield clean(f"A restart needs one of {slots} of the group {fleet.group} (lock: {fleet.lock})"
                    f"{without} while {', '.join(fleet.endpoints)} cannot be reached.")
