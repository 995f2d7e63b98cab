"""An open port, and the nftables table that blocks it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.machines.machine import ADDRESS, ADDRESS_IPV6, Machine, wait_for
from tests.support.correction import (
    DOCKERD,
    ENFORCE,
    OVERRIDE,
)

NEVER = f"{ENFORCE}correct:\n  restart: never\n"
OPEN = {OVERRIDE: f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"}

BUSYBOX_HTTPD = "echo open for business > /index.html; busybox httpd -p 80 -h /; while :; do sleep 1000; done"


def open_up(machine: Machine, files: Mapping[str, str] = OPEN) -> None:
    """Open the API with live-restore off, and run a container whose port 80 is published as 8080."""
    for path, text in files.items():
        machine.write(path, text)
    machine.run("systemctl stop docker.socket docker.service; systemctl daemon-reload; "
                "systemctl start docker.socket docker.service")
    machine.import_busybox()
    machine.run(["docker", "run", "--detach", "--init", "--name=shop", "--publish=8080:80", "busybox",
                 "/bin/sh", "-c", BUSYBOX_HTTPD, "shop"])
    wait_for(lambda: shop_answers(machine), "published port that answers")
    assert is_open(machine)
    assert machine.api_answers(address=ADDRESS_IPV6)


def is_open(machine: Machine) -> bool:
    """Whether the API answers from outside. Asserts that a blocked port refuses at once and does not drop packets."""
    asked = machine.outside(["curl", "--silent", "--max-time", "5", f"http://{ADDRESS}:2375/_ping"], check=False)
    # 55, 56: connection reset while curl sent or received, if the port was blocked during the request.
    assert asked.status in (0, 7, 55, 56), asked
    return asked.status == 0


def shop_answers(machine: Machine) -> bool:
    asked = machine.outside(["curl", "--silent", "--max-time", "5", f"http://{ADDRESS}:8080/index.html"], check=False)
    return asked.out == "open for business\n"


def table(machine: Machine) -> str:
    return machine.run("nft list table inet dockerd_guard", check=False).out


def contained(machine: Machine) -> None:
    wait_for(lambda: not is_open(machine), "end of the exposure", timeout=30)
