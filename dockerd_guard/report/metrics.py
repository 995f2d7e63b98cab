"""Metrics in the Prometheus text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

Labels contain no content of the host's files, only rule codes, layers and outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from dockerd_guard import __version__
from dockerd_guard.report.journal import Outcome

PREFIX = "dockerd_guard_"

ALWAYS_SHOWN = (Outcome.KEPT, Outcome.REPAIRED, Outcome.HELD, Outcome.FAILED)
"""Outcomes that are exported from the start, at 0: rate() ignores the first value of a counter."""

Series = Iterable[tuple[Mapping[str, str], float]]
"""Labels and value of each time series of a metric."""


class Snapshot(NamedTuple):
    """The input of the metrics after a pass. Times are seconds since the epoch.

    `drift_open` and `drift_total` count by rule and layer (`DG101 configured`), `corrections` by outcome.
    """

    up: bool
    enforcing: bool
    last_pass: float
    resync_s: float
    policy_ok: bool
    policy_since: float
    blind: int
    drift_open: Mapping[str, int]
    drift_total: Mapping[str, int]
    exposed: int
    contained: int
    exposed_s: float
    held: bool
    contested: bool
    corrections: Mapping[str, int]
    fleet_waiting: bool = False
    fleet_slot: bool = False
    fleet_stopped: bool = False
    fleet_unreachable: int = 0


class Metric(NamedTuple):
    """A metric: name without PREFIX, type, help text, and its series for a snapshot."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    series: Callable[[Snapshot], Series]


def _one(value: float) -> Series:
    return (({}, value),)


def _by_rule(counts: Mapping[str, int], now: Snapshot) -> Series:
    # A series must not vanish, so a rule stays at 0 after its drift has ended.
    for key in sorted({*now.drift_open, *now.drift_total}):
        rule, _, layer = key.partition(" ")
        yield {"rule": rule, "layer": layer}, counts.get(key, 0)


def _by_outcome(now: Snapshot) -> Series:
    return (({"outcome": outcome}, now.corrections.get(outcome, 0))
            for outcome in dict.fromkeys((*map(str, ALWAYS_SHOWN), *sorted(now.corrections))))


METRICS: tuple[Metric, ...] = (
    Metric("build_info", "gauge", "Always 1; the label is the version of the agent.",
           lambda now: (({"version": __version__}, 1),)),
    Metric("up", "gauge", "1 while the agent runs, 0 after it was stopped.", lambda now: _one(now.up)),
    Metric("enforcing", "gauge", "1 in mode enforce, 0 in mode observe.", lambda now: _one(now.enforcing)),
    Metric("last_pass_timestamp_seconds", "gauge", "Time of the last complete check.",
           lambda now: _one(now.last_pass)),
    Metric("resync_interval_seconds", "gauge", "Maximum time between two complete checks.",
           lambda now: _one(now.resync_s)),
    Metric("policy_ok", "gauge", "1 if the policy file is in force, 0 if it is invalid and the last valid one stays.",
           lambda now: _one(now.policy_ok)),
    Metric("policy_since_timestamp_seconds", "gauge", "Time since which the current policy is in force.",
           lambda now: _one(now.policy_since)),
    Metric("blind_spots", "gauge", "Number of things that the agent cannot observe.", lambda now: _one(now.blind)),
    Metric("drift_open", "gauge", "Open drifts by rule and by the first layer that shows them.",
           lambda now: _by_rule(now.drift_open, now)),
    Metric("drift_total", "counter", "New drifts by rule and by the first layer that showed them.",
           lambda now: _by_rule(now.drift_total, now)),
    Metric("exposed_addresses", "gauge", "TCP addresses that are open to the network against the policy.",
           lambda now: _one(now.exposed)),
    Metric("contained_addresses", "gauge", "TCP addresses that are blocked at the network until they are corrected.",
           lambda now: _one(now.contained)),
    Metric("exposed_seconds_total", "counter", "Time in which the API was open to the network against the policy.",
           lambda now: _one(now.exposed_s)),
    Metric("correction_held", "gauge", "1 while a correction is held: by the policy, a window, or another obstacle.",
           lambda now: _one(now.held)),
    Metric("correction_contested", "gauge", "1 while another program keeps undoing corrections.",
           lambda now: _one(now.contested)),
    Metric("corrections_total", "counter", "Corrections by outcome; kept: ended without a correction.", _by_outcome),
    Metric("fleet_waiting", "gauge", "1 while a restart waits for a slot of the fleet.",
           lambda now: _one(now.fleet_waiting)),
    Metric("fleet_slot_held", "gauge", "1 if this host has a slot after a check: kept on purpose, or not given back.",
           lambda now: _one(now.fleet_slot)),
    Metric("fleet_stopped", "gauge", "1 while the group is stopped, as far as this host has asked or stopped it.",
           lambda now: _one(now.fleet_stopped)),
    Metric("fleet_unreachable_total", "counter", "Requests for a slot that the lock service did not answer.",
           lambda now: _one(now.fleet_unreachable)),
)


def metrics_text(now: Snapshot) -> str:
    """The content of the metrics file."""
    return "".join(
        f"# HELP {PREFIX}{metric.name} {metric.help}\n# TYPE {PREFIX}{metric.name} {metric.kind}\n"
        + "".join(f"{PREFIX}{metric.name}{_labels(labels)} {_number(value)}\n" for labels, value in metric.series(now))
        for metric in METRICS)


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""


def _number(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else f"{value:d}"
