"""What package managers do to a simulated host."""

from __future__ import annotations

from tests.simulation.actions import World
from tests.simulation.host import DOCKERD_FILE, VENDOR_SERVICE, WORKING_DOCKERD

BROKEN_DOCKERD = "dockerd that ends at once"


def upgrade(world: World, variant: int) -> None:
    """An upgrade of the package writes the vendor unit or dockerd, which may not start then, and restarts it. An
    interrupted one, or one under a policy-rc.d(8), restarts nothing."""
    host = world.host
    if variant % 3:
        host.put("/usr/lib/systemd/system/docker.service", f"{VENDOR_SERVICE}# {variant}\n")
    else:
        replace_dockerd(world, WORKING_DOCKERD if variant % 2 else BROKEN_DOCKERD)
    if variant % 4:
        host.reload()
        host.restart("admin")


def replace_dockerd(world: World, text: str) -> None:
    """dpkg(1) renames the new file over the old one."""
    host = world.host
    host.put(DOCKERD_FILE, text)
    if host.running is not None:
        host.running = host.running._replace(process=host.running.process._replace(is_replaced=True))


def remove_package(world: World, variant: int) -> None:
    """Our package is removed, and installed again later."""
    if not world.host.bus_is_gone:
        world.watch.problems += world.agents[-1].uninstall()
