"""The table of docs/access-paths.md: each row is opened, reported, and blocked where the table says so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest

from tests.machines.machine import ADDRESS, ADDRESS_IPV6, Machine, wait_for
from tests.support.access_paths import ROWS, Row, container
from tests.support.containment import BUSYBOX_HTTPD, NEVER, shop_answers, table
from tests.support.correction import LIVE_RESTORE, OBSERVE, POLICY, enforce, entries


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    assert isinstance(request.param, Row)
    return request.param


@pytest.fixture
def debian(row: Row) -> tuple[str, ...]:
    return row.debian


def is_open(machine: Machine, row: Row, address: str = ADDRESS) -> bool:
    """Whether the API answers outside; of a program that does not serve it in HTTP, whether a client can connect."""
    if row.speaks_http:
        return machine.api_answers(row.port, address=address)
    place = f"[{address}]" if ":" in address else address
    return machine.outside(["socat", "-u", "/dev/null", f"TCP:{place}:{row.port}"], check=False).status == 0


def reported(output: str, row: Row) -> bool:
    """Whether `lint` reports the path, by its rule and message."""
    return any(fnmatchcase(finding["message"], row.message) and finding["code"] == row.code
               for finding in json.loads(output)["findings"])


def test_access_path(machine: Machine, row: Row) -> None:
    watch = f"watch:\n  resync: {row.resync}\n"
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    machine.import_busybox()
    machine.run(["docker", "run", "--detach", "--init", "--name=shop", "--publish=8080:80", "busybox",
                 "/bin/sh", "-c", BUSYBOX_HTTPD, "shop"])
    wait_for(lambda: shop_answers(machine), "published port that answers")
    machine.write(POLICY, OBSERVE + watch)
    for path, text in row.files.items():
        machine.write(path, text)
    machine.run(row.line)
    wait_for(lambda: is_open(machine, row), "open access path")

    use = ["curl", "--silent", "--no-buffer", "--max-time", "120", f"http://{ADDRESS}:{row.port}/events"]
    user = subprocess.Popen(machine.outside_command(*use)) if row.is_in_use else None
    wait_for(lambda: reported(machine.run("dockerd-guard lint --format json", check=False).out, row), "finding")
    wait_for(lambda: [entry for entry in entries(machine, "drift") if entry.get("DOCKERD_GUARD_RULE") == row.code
                      and str(row.port) in entry["MESSAGE"]], "drift entry")

    enforce(machine, NEVER + watch)
    if row.is_contained:
        wait_for(lambda: not is_open(machine, row), "end of the exposure")
        assert not is_open(machine, row, ADDRESS_IPV6)
        entry = wait_for(lambda: entries(machine, "contained"), "entry")[-1]
        assert (entry["DOCKERD_GUARD_RULE"], entry["DOCKERD_GUARD_SOCKET"].rpartition(":")[2]) == (
            row.code, str(row.port))
        if row.speaks_http:
            assert machine.run(f"curl --silent --max-time 5 http://127.0.0.1:{row.port}/_ping").out == "OK"
    assert shop_answers(machine)
    if user is not None:
        # The program is an access path also without a connection.
        user.kill()
        user.wait()
    machine.run("systemctl restart dockerd-guard")
    assert row.is_contained != is_open(machine, row)
    assert shop_answers(machine)
    machine.run(row.close)
    machine.run("systemctl reload dockerd-guard")
    wait_for(lambda: table(machine) == "", "release")
    assert machine.run(f"curl --silent http://{ADDRESS}:8080/index.html").out == "open for business\n"


def by_hand(machine: Machine) -> None:
    machine.run("setsid socat TCP-LISTEN:7000,fork UNIX-CONNECT:/run/docker.sock </dev/null >/dev/null 2>&1 &")


def in_a_container(machine: Machine) -> None:
    machine.import_busybox()
    machine.run(container("--volume=/run/docker.sock:/s.sock --publish=7000:7000", "/s.sock"))


class TestBetweenTwoResyncs:
    """Nothing announces a program that is started by hand, and the next resync is far."""

    @pytest.fixture
    def debian(self) -> tuple[str, ...]:
        return ("socat",)

    @pytest.mark.parametrize("start", [by_hand, in_a_container])
    def test_a_program_is_found_when_the_watchdog_is_fed(
        self, machine: Machine, start: Callable[[Machine], None]
    ) -> None:
        machine.write("/etc/systemd/system/dockerd-guard.service.d/watchdog.conf", "[Service]\nWatchdogSec=4s\n")
        machine.write(POLICY, NEVER + "watch: {resync: 1h}\n")
        machine.run("systemctl daemon-reload; systemctl restart dockerd-guard")
        start(machine)
        wait_for(lambda: machine.api_answers(7000), "open access path")
        wait_for(lambda: entries(machine, "contained"), "entry")
        assert not machine.api_answers(7000)
