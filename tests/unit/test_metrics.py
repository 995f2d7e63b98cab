"""Metrics for Prometheus, and the counters behind them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from dockerd_guard import __version__
from dockerd_guard.agent import textfile
from dockerd_guard.agent.counters import Stopwatch
from dockerd_guard.report.agent_status import Counters
from dockerd_guard.report.journal import Event, JournalEntry, Outcome
from dockerd_guard.report.metrics import METRICS, PREFIX, Metric, Snapshot, metrics_text

TOP = Path(__file__).resolve().parents[2]

SNAPSHOT = Snapshot(
    up=True, enforcing=False, last_pass=1795446000.25, resync_s=300.0, policy_ok=True, policy_since=1795440000.0,
    blind=2, drift_open={"DG101 running": 1}, drift_total={"DG101 configured": 3, "DG101 running": 1},
    exposed=1, contained=0, exposed_s=12.5, held=False, contested=False, corrections={"repaired": 2, "pending": 1},
    fleet_waiting=True, fleet_slot=False, fleet_stopped=True, fleet_unreachable=7)

VALUES = f"""\
build_info{{version="{__version__}"}} 1
up 1
enforcing 0
last_pass_timestamp_seconds 1795446000.250
resync_interval_seconds 300.000
policy_ok 1
policy_since_timestamp_seconds 1795440000.000
blind_spots 2
drift_open{{rule="DG101",layer="configured"}} 0
drift_open{{rule="DG101",layer="running"}} 1
drift_total{{rule="DG101",layer="configured"}} 3
drift_total{{rule="DG101",layer="running"}} 1
exposed_addresses 1
contained_addresses 0
exposed_seconds_total 12.500
correction_held 0
correction_contested 0
corrections_total{{outcome="kept"}} 0
corrections_total{{outcome="repaired"}} 2
corrections_total{{outcome="held"}} 0
corrections_total{{outcome="failed"}} 0
corrections_total{{outcome="pending"}} 1
fleet_waiting 1
fleet_slot_held 0
fleet_stopped 1
fleet_unreachable_total 7
"""


def test_the_values_of_a_snapshot() -> None:
    lines = metrics_text(SNAPSHOT).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [PREFIX + line for line in VALUES.splitlines()]
    assert [line for line in lines if line.startswith("#")] == [
        line for metric in METRICS for line in (f"# HELP {PREFIX}{metric.name} {metric.help}",
                                                f"# TYPE {PREFIX}{metric.name} {metric.kind}")]


def test_the_page_lists_each_metric_with_its_help_text() -> None:
    rows = [line for line in (TOP / "docs/metrics.md").read_text().splitlines() if line.startswith(f"| `{PREFIX}")]
    assert rows == [f"| `{PREFIX}{metric.name}{labels_of(metric)}` | {metric.kind} | {metric.help} |"
                    for metric in METRICS]


def labels_of(metric: Metric) -> str:
    labels, _ = next(iter(metric.series(SNAPSHOT)))
    return f"{{{','.join(labels)}}}" if labels else ""


@pytest.mark.parametrize("file", ["alerts.yaml", "grafana.json"])
def test_alerts_and_dashboard_use_existing_metrics(file: str) -> None:
    asked = set(re.findall(PREFIX + r"(\w+)", (TOP / "packaging/prometheus" / file).read_text()))
    assert asked
    assert asked <= {metric.name for metric in METRICS}


def test_the_example_for_alertmanager_names_existing_alerts() -> None:
    alerts, example = ((TOP / f"packaging/prometheus/{name}.yaml").read_text() for name in ("alerts", "alertmanager"))
    named = set(re.findall(r"\bDocker(?:dGuard|Api)\w+", example))
    assert named
    assert named <= set(re.findall(r"- alert: (\w+)", alerts))


def drift(code: str, layer: str, fact: str) -> JournalEntry:
    return JournalEntry(Event.DRIFT, "", rule=code, layer=layer, episodes=(fact,))


@pytest.mark.parametrize(("entries", "known", "drifts", "corrections"), [
    ([drift("DG101", "configured", "DG101 tcp://*:2375")], (), {"DG101 configured": 3}, {"held": 1}),
    # Reported again after a restart, or with another layer.
    ([drift("DG101", "running", "DG101 tcp://*:2375")], ("DG101 tcp://*:2375",), {"DG101 configured": 2}, {"held": 1}),
    ([drift("DG101", "running", "DG101 tcp://*:2375"), drift("DG306", "configured", "DG306 configured /a")], ("x",),
     {"DG101 configured": 2, "DG101 running": 1, "DG306 configured": 1}, {"held": 1}),
    ([JournalEntry(Event.CORRECTED, "", Outcome.REPAIRED), JournalEntry(Event.ROLLED_BACK, "", Outcome.FAILED),
      JournalEntry(Event.FAILED, "", Outcome.FAILED), JournalEntry(Event.CORRECTED, "", Outcome.KEPT),
      JournalEntry(Event.CONTESTED, "", Outcome.HELD)], (),
     {"DG101 configured": 2}, {"held": 2, "repaired": 1, "failed": 2, "kept": 1}),
    ([JournalEntry(Event.CONTAINED, "", Outcome.HELD), JournalEntry(Event.RELEASED, "", Outcome.REPAIRED),
      JournalEntry(Event.POLICY, "", Outcome.FAILED), JournalEntry(Event.BLIND, "", Outcome.FAILED)], (),
     {"DG101 configured": 2}, {"held": 1}),
])
def test_counters_of_entries(entries: list[JournalEntry], known: tuple[str, ...], drifts: dict[str, int],
                                corrections: dict[str, int]) -> None:
    before = Counters({"DG101 configured": 2}, {"held": 1}, 1.5)
    assert before.with_entries(entries, known) == Counters(drifts, corrections, 1.5)


@pytest.mark.parametrize(("looks", "seconds"), [
    # Time of a look, whether it finds an exposure, and time of the last trigger.
    ([(10, False, 0), (20, False, 19)], 0),
    ([(10, True, 0), (20, False, 19)], 10),
    ([(10, False, 0), (20, True, 18), (25, True, 18), (30, False, 29)], 12),
    # Found by a resync: the begin is unknown.
    ([(10, False, 5), (310, True, 5), (320, False, 319)], 10),
    ([(10, True, 0), (10, True, 0), (11, False, 0), (12, True, 11.5), (13, False, 0)], 2.5),
])
def test_an_exposure_counts_from_the_trigger_that_showed_it(
        looks: list[tuple[float, bool, float]], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    watch = Stopwatch()
    for clock[0], is_exposed, changed_at in looks:
        watch.looked(is_exposed=is_exposed, changed_at=changed_at)
    assert watch.seconds == seconds


@pytest.mark.parametrize(("is_exposed", "seconds"), [(False, 0.5), (True, 2.0)])
def test_a_block_that_was_removed_between_two_looks_counts_once(
        monkeypatch: pytest.MonkeyPatch, *, is_exposed: bool, seconds: float) -> None:
    clock = [1.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    watch = Stopwatch()
    watch.looked(is_exposed=is_exposed, changed_at=0)
    watch.add(0.5)
    clock[0] = 3.0
    watch.looked(is_exposed=False, changed_at=0)
    assert watch.seconds == seconds


def test_the_file_is_written_atomically_and_only_into_an_existing_directory(tmp_path: Path) -> None:
    there = tmp_path / "node-exporter"
    textfile.publish("a 1\n", str(there))
    assert not there.exists()
    there.mkdir()
    for line in ("a 1\n", "a 2\n"):
        textfile.publish(line, str(there))
        assert [(each.name, each.read_text(), each.stat().st_mode & 0o777) for each in there.iterdir()] == [
            (textfile.FILE, line, 0o644)]
    (tmp_path / "link").symlink_to(there)
    with pytest.raises(OSError, match="Not a directory"):
        textfile.publish("a 3\n", str(tmp_path / "link"))


def test_dashboard_panels_do_not_overlap() -> None:
    panels = json.loads((TOP / "packaging/prometheus/grafana.json").read_text())["panels"]
    taken = [(x, y) for panel in panels for place in [panel["gridPos"]]
             for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23
    assert len({panel["id"] for panel in panels}) == len(panels)
