"""What an agent reports of the drifts that the process before it has reported."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dockerd_guard.agent.drift_tracker import DriftTracker
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.location import Location
from dockerd_guard.observe.observation import CONFIGURED, LISTENING, Observation
from dockerd_guard.report.agent_status import Drift
from dockerd_guard.report.journal import Cause
from tests.simulation.agent import RecordedJournal
from tests.support.situations import read_policy

OF_CONTAINER = Finding("DG108", "error", "container relay", LISTENING, socket="tcp://0.0.0.0:7000",
                       container="relay")
OF_PROCESS = Finding("DG107", "error", "socat", LISTENING, socket="tcp://0.0.0.0:5000")
RESOLVED_CONTAINER, RESOLVED_PROCESS = "corrected DG108 tcp://*:7000", "corrected DG107 tcp://*:5000"


@pytest.mark.parametrize(("name", "looks", "entries"), [
    ("no engine has answered", (((), False), ((), False)), (RESOLVED_PROCESS,)),
    ("an engine has answered", (((), True),), (RESOLVED_CONTAINER, RESOLVED_PROCESS)),
    ("one answers later", (((), False), ((), True)), (RESOLVED_PROCESS, RESOLVED_CONTAINER)),
    ("and the container is there", (((), False), ((OF_CONTAINER,), True)),
     (RESOLVED_PROCESS, "drift DG108 tcp://*:7000")),
])
def test_a_container_lasts_until_an_engine_has_answered(
    name: str, looks: tuple[tuple[tuple[Finding, ...], bool], ...], entries: tuple[str, ...]
) -> None:
    journal = RecordedJournal()
    tracker = DriftTracker(journal)
    since = datetime(2026, 11, 25, 12, tzinfo=UTC)
    tracker.go_on_from(Drift(since, finding) for finding in (OF_CONTAINER, OF_PROCESS))
    for findings, knows_containers in looks:
        tracker.report_drifts(Observation(None, None), findings, (), read_policy(""),  # type: ignore[arg-type]
                              Cause.DRIFT, is_contested=False, knows_containers=knows_containers)
        if not knows_containers:
            # `status` shows it.
            assert OF_CONTAINER.fact in {drift.finding.fact for drift in tracker.lasting(since)}
    assert tuple(f"{entry.event} {' '.join(entry.episodes)}" for entry in journal.entries) == entries


EXPIRED = Finding("DG206", "error", "tlscacert /etc/docker/ca.pem expired", CONFIGURED, Location("/a.conf", 1, 1, 2))
EXPIRES = EXPIRED._replace(severity="warning", message="tlscert /etc/docker/cert.pem expires")


@pytest.mark.parametrize("findings", [(EXPIRED, EXPIRES), (EXPIRES, EXPIRED)])
def test_a_warning_hides_no_error_about_the_same_file(findings: tuple[Finding, ...]) -> None:
    journal = RecordedJournal()
    DriftTracker(journal).report_drifts(Observation(None, None), findings, (),  # type: ignore[arg-type]
                                        read_policy(""), Cause.DRIFT, is_contested=False)
    assert [entry.message.partition(": ")[2].partition(".")[0] for entry in journal.entries] == [
        "Tlscacert /etc/docker/ca"]
