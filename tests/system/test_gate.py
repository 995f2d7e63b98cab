"""What keeps a correction back, and what undoes one: nothing is left worse than it was."""

from __future__ import annotations

import json
import posixpath
from typing import NamedTuple

import pytest

from tests.machines.machine import ADDRESS, Machine, wait_for
from tests.system.slow_war import reloads, starts
from tests.system.test_alone import OPEN
from tests.system.test_correction import (
    ENFORCE,
    LIVE_RESTORE,
    OBSERVE,
    OUR_SERVICE_DROPIN,
    OVERRIDE,
    POLICY,
    enforce,
    entries,
    make_certificates,
    repaired,
)

DROPIN_DIRECTORY = posixpath.dirname(OVERRIDE)


class Obstacle(NamedTuple):
    """A policy this host cannot keep to, a shell line before it, and the words of the entry."""

    name: str
    sockets: str
    line: str
    words: str


OBSTACLES = (
    Obstacle("no certificates", f"[fd://, tcp://{ADDRESS}:2376]", "", "/etc/docker/server-cert.pem"),
    Obstacle("a key of another certificate", f"[fd://, tcp://{ADDRESS}:2376]",
             "cp /etc/docker/ca-key.pem /etc/docker/server-key.pem", "/etc/docker/server-key.pem cannot be used"),
    Obstacle("an address of another host", "[fd://, tcp://192.0.2.1:2376]", "",
             "192.0.2.1 is not an address of this host"),
    Obstacle("a port that somebody else has", f"[fd://, tcp://{ADDRESS}:2376]",
             f"systemd-run --unit=other socat TCP-LISTEN:2376,bind={ADDRESS},fork /dev/null",
             f"{ADDRESS}:2376 is in use"),
)


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda obstacle: obstacle.name)
def test_what_would_fail_is_found_before_anything_is_changed(machine: Machine, obstacle: Obstacle) -> None:
    if obstacle.name != "no certificates":
        make_certificates(machine)
    if obstacle.line:
        machine.run(obstacle.line)
    dockerd = machine.main_pid()
    enforce(machine, f"version: 1\nmode: enforce\nsockets: {obstacle.sockets}\n")
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert obstacle.words in held[-1]["MESSAGE"]
    assert not machine.exists(OUR_SERVICE_DROPIN)
    assert machine.main_pid() == dockerd


def test_a_correction_that_dockerd_does_not_survive_is_rolled_back_and_not_tried_again(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    container = machine.start_container()
    enforce(machine, "version: 1\nmode: enforce\nsockets: [unix:///no/such/directory/docker.sock]\n")
    rolled_back = wait_for(lambda: entries(machine, "rolled-back"), "roll-back", timeout=120)
    assert rolled_back[-1]["DOCKERD_GUARD_OUTCOME"] == "failed"
    assert not machine.exists(OUR_SERVICE_DROPIN)
    assert machine.socket_answers()
    assert machine.container_pid() == container
    dockerd = machine.main_pid()
    machine.run("systemctl kill -s HUP dockerd-guard; systemctl daemon-reload")
    wait_for(lambda: "mode enforce" in machine.run("systemctl status dockerd-guard").out, "pass")
    assert len(entries(machine, "rolled-back")) == 1
    assert machine.main_pid() == dockerd


def test_the_budget_is_kept_over_restarts_of_the_agent(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    policy = f"{ENFORCE}correct:\n  budget: 1/1h\n"
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    enforce(machine, policy)
    wait_for(lambda: repaired(machine), "correction")
    machine.write(POLICY, policy.replace("enforce", "observe"))
    machine.run("systemctl restart dockerd-guard")
    machine.remove(OUR_SERVICE_DROPIN)
    machine.run("systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker")
    enforce(machine, policy)
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert "the budget of 1/1h restarts is used up" in held[-1]["MESSAGE"]
    assert " until " in held[-1]["MESSAGE"]
    assert machine.exists(OUR_SERVICE_DROPIN)


@pytest.mark.parametrize(("correct", "words", "until"), [
    ("restart: never", "the policy says `restart: never`", ""),
    ("window: Mon 03:00-03:01 Pacific/Kiritimati", "outside the window Mon 03:00-03:01 Pacific/Kiritimati",
     "03:00 +14"),
], ids=["never", "window"])
def test_leave_is_the_policys_to_give(machine: Machine, correct: str, words: str, until: str) -> None:
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker")
    dockerd = machine.main_pid()
    enforce(machine, f"{ENFORCE}correct:\n  {correct}\n")
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert machine.main_pid() == dockerd
    assert machine.exists(OUR_SERVICE_DROPIN)
    wait_for(lambda: words in machine.properties("dockerd-guard.service", "StatusText")["StatusText"], "STATUS= line")
    for told in (held[-1]["MESSAGE"], machine.properties("dockerd-guard.service", "StatusText")["StatusText"],
                 machine.run("dockerd-guard diff", check=False).out):
        assert words in told
        assert (" until " in told) == bool(until), told
        assert until in told
    shown = json.loads(machine.run("dockerd-guard diff --format json", check=False).out)["held"]
    assert shown["reason"] == words
    assert (shown["until"] is None) == (not until)


def test_diff_tells_beforehand_what_fix_then_costs(machine: Machine) -> None:
    """In the order of the steps: what is done first, the cost, and which containers would stop."""
    machine.write(POLICY, f"{OBSERVE}correct: {{restart: always, budget: 100/1h}}\n")
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    container = machine.start_container()
    restart = "systemctl daemon-reload; systemctl reset-failed docker; systemctl restart docker"
    for line, cost, stops in (
        ("true", "nothing", []),
        (f"printf '{OPEN}' > {OVERRIDE}", "reload", []),
        (f"rm {OUR_SERVICE_DROPIN}; {restart}", "restart", []),
        (f"echo '{{}}' > /etc/docker/daemon.json; systemctl reload docker; rm {OUR_SERVICE_DROPIN}; "
         "systemctl daemon-reload", "reload", []),
        (f"rm {OUR_SERVICE_DROPIN}; {restart}; docker start bystander || true", "containers", ["bystander"]),
    ):
        machine.run(f"mkdir -p {DROPIN_DIRECTORY}; {line}")
        container = machine.started_container_pid()
        foreseen = json.loads(machine.run("dockerd-guard diff --format json", check=False).out)
        assert (foreseen["cost"], foreseen["containers"]) == (cost, stops), line
        before = (reloads(machine), starts(machine))
        assert machine.run("dockerd-guard fix").status == 0
        was_reloaded, was_restarted = reloads(machine) > before[0], starts(machine) > before[1]
        assert (was_reloaded, was_restarted) == (cost != "nothing", cost in ("restart", "containers")), line
        assert (machine.container_pid() == container) == (cost != "containers"), line


def test_a_unit_that_would_fall_with_docker_holds_the_restart(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.write("/etc/systemd/system/shop.service",
                  "[Unit]\nRequires=docker.service\nAfter=docker.service\n[Service]\nExecStart=/bin/sleep infinity\n")
    machine.write(OVERRIDE, OPEN)
    machine.run("systemctl daemon-reload; systemctl restart docker; systemctl start shop")
    shop = machine.main_pid("shop.service")
    enforce(machine)
    held = wait_for(lambda: entries(machine, "held"), "held correction")
    assert "shop.service would be stopped with docker.service" in held[-1]["MESSAGE"]
    assert machine.main_pid("shop.service") == shop
    machine.run("systemctl stop shop")
    machine.run("systemctl reload dockerd-guard")
    wait_for(lambda: repaired(machine), "correction")
    assert not machine.api_answers()
