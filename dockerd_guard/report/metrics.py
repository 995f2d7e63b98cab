"""Metrics for Prometheus, in its text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).

No label holds anything that a file of the host says: rules, layers and outcomes are words of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from dockerd_guard import __version__
from dockerd_guard.report.journal import Outcome

PREFIX = "dockerd_guard_"

ALWAYS_SHOWN = (Outcome.KEPT, Outcome.REPAIRED, Outcome.HELD, Outcome.FAILED)
"""Counters that are there from the start, at 0: rate() does not see a counter's first value as a rise."""

Series = Iterable[tuple[Mapping[str, str], float]]
"""Labels and value of each series of one metric."""


class Snapshot(NamedTuple):
    """What there is to tell after a pass. Times are seconds since the epoch.

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


class Metric(NamedTuple):
    """One metric: its name without PREFIX, what it is, and how to read it off a snapshot."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    series: Callable[[Snapshot], Series]


def _one(value: float) -> Series:
    return (({}, value),)


def _by_rule(counts: Mapping[str, int], now: Snapshot) -> Series:
    # A series that is not there any more is no 0: what was open once stays in sight.
    for key in sorted({*now.drift_open, *now.drift_total}):
        rule, _, layer = key.partition(" ")
        yield {"rule": rule, "layer": layer}, counts.get(key, 0)


def _by_outcome(now: Snapshot) -> Series:
    return (({"outcome": outcome}, now.corrections.get(outcome, 0))
            for outcome in dict.fromkeys((*map(str, ALWAYS_SHOWN), *sorted(now.corrections))))


METRICS: tuple[Metric, ...] = (
    Metric("build_info", "gauge", "Always 1; tells the version of the agent.",
           lambda now: (({"version": __version__}, 1),)),
    Metric("up", "gauge", "1 while the agent runs, 0 once it was stopped.", lambda now: _one(now.up)),
    Metric("enforcing", "gauge", "1 in mode enforce, 0 in mode observe.", lambda now: _one(now.enforcing)),
    Metric("last_pass_timestamp_seconds", "gauge", "When the agent last looked at everything.",
           lambda now: _one(now.last_pass)),
    Metric("resync_interval_seconds", "gauge", "It looks at everything at least this often.",
           lambda now: _one(now.resync_s)),
    Metric("policy_ok", "gauge", "1 if the policy file is in force, 0 if it is no good and the last good one stays.",
           lambda now: _one(now.policy_ok)),
    Metric("policy_since_timestamp_seconds", "gauge", "Since when the policy in force has been.",
           lambda now: _one(now.policy_since)),
    Metric("blind_spots", "gauge", "How many things the agent cannot see or ask.", lambda now: _one(now.blind)),
    Metric("drift_open", "gauge", "Drift that lasts, by rule and by the first layer that shows it.",
           lambda now: _by_rule(now.drift_open, now)),
    Metric("drift_total", "counter", "Drift that was seen to begin, by rule and by the first layer that showed it.",
           lambda now: _by_rule(now.drift_total, now)),
    Metric("exposed_addresses", "gauge", "TCP addresses of the Docker API open to the network against the policy.",
           lambda now: _one(now.exposed)),
    Metric("contained_addresses", "gauge", "TCP addresses cut off from the network until they are corrected.",
           lambda now: _one(now.contained)),
    Metric("exposed_seconds_total", "counter", "How long the Docker API was open to the network against the policy.",
           lambda now: _one(now.exposed_s)),
    Metric("correction_held", "gauge", "1 while a correction waits: for leave, for a window, or for a change.",
           lambda now: _one(now.held)),
    Metric("correction_contested", "gauge", "1 while something else undoes corrections again and again.",
           lambda now: _one(now.contested)),
    Metric("corrections_total", "counter", "Corrections by outcome; kept is drift that ended by itself.", _by_outcome),
)


def text(now: Snapshot) -> str:
    """The whole file."""
    return "".join(
        f"# HELP {PREFIX}{metric.name} {metric.help}\n# TYPE {PREFIX}{metric.name} {metric.kind}\n"
        + "".join(f"{PREFIX}{metric.name}{_labels(labels)} {_number(value)}\n" for labels, value in metric.series(now))
        for metric in METRICS)


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""


def _number(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else f"{value:d}"
