"""An upgrade of docker.io while a correction is in force: the new unit takes effect, and the port stays closed."""

from __future__ import annotations

from tests.machines.machine import Machine, wait_for
from tests.support.correction import LIVE_RESTORE, OUR_SERVICE_DROPIN, UNIT, enforce, repaired, settled

# The installed package, repacked with a higher version and another argument in its unit.
REPACK = r"""
mkdir -p /root/new/DEBIAN; cd /root/new
dpkg-query --listfiles docker.io | while read -r file; do
  if [ -f "$file" ]; then cp --archive --parents "$file" .; fi
done
for script in preinst postinst prerm postrm; do
  cp /var/lib/dpkg/info/docker.io.$script DEBIAN/ 2>/dev/null || true
done
dpkg-query --show --showformat='${Conffiles}\n' docker.io | sed -n 's|^ *\(/[^ ]*\) .*|\1|p' > DEBIAN/conffiles
fields='Package: docker.io\nVersion: ${Version}+upgrade\nArchitecture: ${Architecture}\n'
fields="${fields}Maintainer: nobody\nDescription: the next one\n"
dpkg-query --show --showformat="$fields" docker.io > DEBIAN/control
sed -i 's|^ExecStart=.*|& --label upgraded=yes|' "$(find . -name docker.service -path '*systemd/system*')"
dpkg-deb -Znone --build . /root/new.deb
"""


def test_docker_upgrade_takes_effect_and_keeps_the_port_closed(machine: Machine) -> None:
    machine.write("/etc/docker/daemon.json", LIVE_RESTORE)
    machine.run("systemctl reload docker")
    container = machine.start_container()
    machine.run(["sh", "-euc", REPACK])
    before = machine.read("/etc/default/docker")
    machine.write("/etc/default/docker", 'DOCKER_OPTS="-H tcp://0.0.0.0:2375 --tls=false"\n')
    machine.run(f"sed -i 's|^ExecStart=.*|& -H tcp://0.0.0.0:4243|' {UNIT}; "
                "systemctl daemon-reload; systemctl restart docker")
    wait_for(lambda: machine.api_answers(4243), "open API")
    enforce(machine)
    wait_for(lambda: repaired(machine), "correction")
    assert "upgraded=yes" not in machine.read(OUR_SERVICE_DROPIN)

    machine.run("DEBIAN_FRONTEND=noninteractive dpkg --force-confold --install /root/new.deb")
    wait_for(lambda: "--label upgraded=yes" in machine.read(OUR_SERVICE_DROPIN), "new argument in our drop-in")
    settled(machine)
    machine.run("systemctl reset-failed docker; systemctl restart docker")
    assert "upgraded=yes" in machine.run(f"cat /proc/{machine.main_pid()}/cmdline").out
    assert not machine.api_answers()
    assert not machine.api_answers(4243)
    assert machine.container_pid() == container

    # The upgrade has replaced the edited unit. When the other drift is gone too, our drop-in is removed.
    machine.write("/etc/default/docker", before)
    wait_for(lambda: not machine.exists(OUR_SERVICE_DROPIN), "removal of our drop-in")
    settled(machine)
    assert machine.container_pid() == container
