"""Metrics as the real node_exporter serves them, checked by the real promtool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.machines.machine import Machine, wait_for
from tests.support.correction import DOCKERD, ENFORCE, OVERRIDE, POLICY, enforce

TOP = Path(__file__).resolve().parents[2]
ALERTS_TEST = Path(__file__).with_name("alerts_test.yaml")
DASHBOARD = TOP / "packaging/prometheus/grafana.json"

FILE = "/var/lib/prometheus/node-exporter/dockerd-guard.prom"
SHIPPED = "/usr/share/dockerd-guard"

REFUSED = 7
"""curl(1), EXIT CODES."""

OPEN = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"
DRIFT = '{layer="configured",rule="DG101"}'


@pytest.fixture
def debian() -> tuple[str, ...]:
    return "prometheus", "prometheus-node-exporter", "prometheus-alertmanager"


def served(machine: Machine) -> dict[str, float]:
    """Scrape node_exporter and return dockerd-guard's metrics; none while it starts and does not listen yet."""
    asked = machine.run("curl --silent --max-time 10 http://localhost:9100/metrics", check=False)
    if asked.status == REFUSED:
        return {}
    assert asked.status == 0, asked
    found = dict(line.rpartition(" ")[::2] for line in asked.out.splitlines() if not line.startswith("#"))
    assert found["node_textfile_scrape_error"] == "0"
    return {name.removeprefix("dockerd_guard_"): float(value) for name, value in found.items()
            if name.startswith("dockerd_guard_")}


def wait_until(machine: Machine, **wanted: float) -> dict[str, float]:
    """Scrape until these metrics have these values, and return all."""
    seen: dict[str, float] = {}

    def matches() -> bool:
        seen.clear()
        seen.update(served(machine))
        return all(seen.get(name) == value for name, value in wanted.items())

    try:
        wait_for(matches, f"metrics with {wanted}")
    except TimeoutError:
        pytest.fail(f"wanted {wanted}, got {seen}")
    return seen


def test_metrics_follow_the_host_and_persist_without_the_agent(machine: Machine) -> None:
    healthy = wait_until(machine, up=1, exposed_addresses=0)
    assert (healthy["policy_ok"], healthy["enforcing"], healthy["blind_spots"]) == (1, 0, 0)
    assert healthy["resync_interval_seconds"] == 300
    now = float(machine.run("date +%s").out)
    assert now - 60 < healthy["last_pass_timestamp_seconds"] < now + 60
    assert machine.run(["stat", "-c", "%U %a", FILE]).out == "root 644\n"
    lint = machine.run(f"promtool check metrics < {FILE}")
    assert (lint.out, lint.err) == ("", "")

    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    exposed = wait_until(machine, exposed_addresses=1, **{f"drift_open{DRIFT}": 1})
    assert exposed[f"drift_total{DRIFT}"] == 1

    machine.run("systemctl stop dockerd-guard")
    stopped = wait_until(machine, up=0, exposed_addresses=1, **{f"drift_open{DRIFT}": 1, f"drift_total{DRIFT}": 1})
    assert stopped["exposed_seconds_total"] > 0
    machine.run("systemctl start dockerd-guard")
    again = wait_until(machine, up=1, exposed_addresses=1, **{f"drift_open{DRIFT}": 1, f"drift_total{DRIFT}": 1})
    assert again["exposed_seconds_total"] >= stopped["exposed_seconds_total"]

    enforce(machine, f"{ENFORCE}correct:\n  restart: never\n")
    held = wait_until(machine, enforcing=1, correction_held=1, contained_addresses=1, exposed_addresses=0)
    assert held['corrections_total{outcome="held"}'] == 1

    enforce(machine)
    fixed = wait_until(machine, correction_held=0, contained_addresses=0, exposed_addresses=0,
                        **{f"drift_open{DRIFT}": 0, 'corrections_total{outcome="repaired"}': 1})
    assert fixed[f"drift_total{DRIFT}"] == 1
    assert fixed["exposed_seconds_total"] >= again["exposed_seconds_total"]

    machine.write(POLICY, "version: 1\nsokcets: []\n")
    reload = machine.run("systemctl reload dockerd-guard", check=False)
    assert (reload.status, "systemctl status dockerd-guard.service" in reload.err) == (1, True), reload.err
    machine.sync_journal()
    shown = machine.run("systemctl status --full dockerd-guard", check=False).out
    assert f"{POLICY}:2:1: unknown key 'sokcets' in the policy; did you mean 'sockets'?" in shown
    refused = wait_until(machine, policy_ok=0, enforcing=1)
    assert refused["policy_since_timestamp_seconds"] == fixed["policy_since_timestamp_seconds"]

    machine.run("apt-get remove --yes dockerd-guard")
    assert not machine.exists(FILE)


def test_node_exporter_can_be_installed_while_the_agent_runs(machine: Machine) -> None:
    wait_until(machine, up=1)
    machine.run("dpkg --purge prometheus-node-exporter")
    machine.run("systemctl reload dockerd-guard")
    # dpkg runs our trigger, which restarts the agent; its sandbox then includes the directory.
    machine.run("dpkg --install /var/cache/apt/archives/prometheus-node-exporter_*.deb")
    wait_until(machine, up=1)
    machine.write(POLICY, ENFORCE)
    wait_until(machine, enforcing=1)


def test_promtool_and_amtool_accept_alerts_and_dashboard(machine: Machine) -> None:
    machine.run("mkdir /root/rules")
    machine.run(f"cp {SHIPPED}/alerts.yaml /root/rules")
    machine.copy_in(ALERTS_TEST, "/root/rules/alerts_test.yaml")
    machine.run("promtool check rules /root/rules/alerts.yaml")
    machine.run("cd /root/rules; promtool test rules alerts_test.yaml")

    machine.run(f"amtool check-config {SHIPPED}/alertmanager.yaml")
    for severity, receiver in (("critical", "on-call"), ("warning", "operators")):
        shown = machine.run(f"amtool config routes test --config.file={SHIPPED}/alertmanager.yaml severity={severity}")
        assert shown.out == f"{receiver}\n"

    assert machine.read(f"{SHIPPED}/grafana.json") == DASHBOARD.read_text()
    queries = [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    assert len(queries) > 10
    rules = [{"record": f"query{number}", "expr": query.replace("$job", ".+").replace("$instance", ".+")}
             for number, query in enumerate(queries)]
    machine.write("/root/rules/dashboard.yaml", json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    machine.run("promtool check rules /root/rules/dashboard.yaml")
