"""Journal entries of containment, one for each address."""

from __future__ import annotations

from collections.abc import Iterator

from dockerd_guard.containment.containment import ContainmentResult, Method
from dockerd_guard.containment.nftables import TABLE
from dockerd_guard.observe.observation import LISTENING
from dockerd_guard.plan.exposures import Exposure
from dockerd_guard.report.journal import Event, JournalEntry, Outcome

_METHOD_TEXTS = {
    Method.NFTABLES: f"by the nftables table {TABLE}; containers, published ports, pulls and loopback are not affected",
    Method.IP_ADDRESS_DENY: "by IPAddressDeny=any on docker.service, because {reason}; this also blocks other traffic "
                            "of dockerd and docker-proxy: pulls, and published ports by loopback or IPv6",
}


def containment_entries(result: ContainmentResult, *, by_policy: bool) -> Iterator[JournalEntry]:
    """The entries for a result. `by_policy`: the policy no longer requests containment."""
    for exposure in result.cut:
        until = "until it is corrected" if exposure.is_of_docker_service else "until it is closed"
        method = _method_text(result).replace("published ports", "other published ports" * exposure.is_published
                                              or "published ports")
        yield _entry(Event.CONTAINED, exposure, f"{exposure.address} is blocked at the network {until}, {method}.")
    missing = f"; it was not blocked for {result.reopened_s:.1f} s" * (result.reopened_s > 0)
    for exposure in result.put_back:
        block = f"the nftables table {TABLE}" if result.way is Method.NFTABLES else "IPAddressDeny= of docker.service"
        yield _entry(Event.CONTAINED, exposure, f"{exposure.address} is blocked at the network again: another program "
                     f"had removed or changed {block}{missing}.")._replace(open_s=result.reopened_s or None)
    for exposure in result.left_open:
        if exposure.namespace:
            yield _entry(Event.FAILED, exposure, f"{exposure.address} stays open until it is corrected: it is in the "
                         f"network namespace {exposure.namespace}, and only ports of the host's own can be blocked.",
                         Outcome.FAILED)
            continue
        yield _entry(Event.FAILED, exposure, f"{exposure.address} stays open to the network until it is corrected: "
                     f"{result.reason}, and IPAddressDeny= on docker.service needs cgroup v2 and does not apply to "
                     "sockets that systemd opened or to other programs.", Outcome.FAILED)
    reason = ("the policy no longer requests it" if by_policy
              else "nothing gives access to Docker there against the policy")
    for address in result.released:
        yield JournalEntry(Event.RELEASED, f"{address} is no longer blocked at the network: {reason}.",
                    outcome=Outcome.REPAIRED, layer=LISTENING, socket=address)


def _method_text(result: ContainmentResult) -> str:
    return _METHOD_TEXTS[result.way].format(reason=result.reason) if result.way is not None else ""


def _entry(event: Event, exposure: Exposure, message: str, outcome: Outcome = Outcome.HELD) -> JournalEntry:
    return JournalEntry(event, message, outcome=outcome, rule=exposure.rule, layer=LISTENING, socket=exposure.address)
