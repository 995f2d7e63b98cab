"""Exposures of a machine, and helpers that wait for their correction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.machines.machine import ADDRESS, Machine, wait_for

POLICY = "/etc/dockerd-guard/config.yaml"
OUR_SERVICE_DROPIN = "/etc/systemd/system/docker.service.d/zz-dockerd-guard.conf"
OUR_SOCKET_DROPIN = "/etc/systemd/system/docker.socket.d/zz-dockerd-guard.conf"
OVERRIDE = "/etc/systemd/system/docker.service.d/override.conf"
SOCKET_OVERRIDE = "/etc/systemd/system/docker.socket.d/override.conf"
UNIT = "/lib/systemd/system/docker.service"
DOCKERD = "/usr/sbin/dockerd"
LIVE_RESTORE = '{"live-restore": true}\n'

OPEN = f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"
"""A drop-in that opens the API to everyone."""

ENFORCE = "version: 1\nmode: enforce\nsockets:\n  - fd://\n"
OBSERVE = "version: 1\nmode: observe\nsockets:\n  - fd://\n"


class Exposure(NamedTuple):
    """A change of the host: files to write, a shell line, and the files that the agent then writes.

    `blamed` is the file that the drift entry names.
    """

    name: str
    files: Mapping[str, str]
    line: str
    blamed: str
    written: tuple[str, ...]


# --tls=false avoids the 15 s that dockerd waits before it opens TCP without TLS.
EXPOSURES = (
    Exposure("the guide: -H in the vendor's unit", {},
             f"sed -i 's|^ExecStart=.*|& -H=tcp://0.0.0.0:2375 --tls=false|' {UNIT}", UNIT, (OUR_SERVICE_DROPIN,)),
    Exposure("a drop-in that resets ExecStart=",
             {OVERRIDE: f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:2375 --tls=false\n"},
             "", OVERRIDE, (OUR_SERVICE_DROPIN,)),
    Exposure("combined short options, continued on the next line",
             {OVERRIDE: f"[Service]\nExecStart=\nExecStart={DOCKERD} -DHtcp://0.0.0.0:2375 \\\n"
                        "  --tls=false --host=fd://\n"},
             "", OVERRIDE, (OUR_SERVICE_DROPIN,)),
    Exposure("DOCKER_OPTS in the environment file",
             {"/etc/default/docker": 'DOCKER_OPTS="-H tcp://0.0.0.0:2375 --tls=false --label a=b"\n'},
             "", "/etc/default/docker", (OUR_SERVICE_DROPIN,)),
    Exposure("DOCKER_OPTS in Environment=",
             {OVERRIDE: '[Service]\nEnvironment="DOCKER_OPTS=-H tcp://0.0.0.0:2375 --tls=false"\n'},
             "", OVERRIDE, (OUR_SERVICE_DROPIN,)),
    Exposure("a port in docker.socket",
             {SOCKET_OVERRIDE: "[Socket]\nListenStream=0.0.0.0:2375\n"},
             "systemctl stop docker.socket docker.service; systemctl daemon-reload; "
             "systemctl start docker.socket docker.service",
             SOCKET_OVERRIDE, (OUR_SOCKET_DROPIN,)),
    Exposure("an additional socket unit",
             {"/etc/systemd/system/docker-tcp.socket":
              "[Socket]\nListenStream=2375\nService=docker.service\n[Install]\nWantedBy=sockets.target\n"},
             "systemctl daemon-reload; systemctl stop docker.socket docker.service; "
             "systemctl enable --now docker-tcp.socket; systemctl start docker.socket docker.service",
             "/etc/systemd/system/docker-tcp.socket",
             ("/etc/systemd/system/docker-tcp.socket.d/zz-dockerd-guard.conf",)),
    Exposure("a port in docker.socket, another by -H",
             {SOCKET_OVERRIDE: "[Socket]\nListenStream=2375\n",
              OVERRIDE: f"[Service]\nExecStart=\nExecStart={DOCKERD} -H fd:// -H tcp://0.0.0.0:4243 --tls=false\n"},
             "systemctl stop docker.socket docker.service; systemctl daemon-reload; "
             "systemctl start docker.socket docker.service",
             SOCKET_OVERRIDE, (OUR_SOCKET_DROPIN, OUR_SERVICE_DROPIN)),
)


def enforce(machine: Machine, policy: str = ENFORCE) -> None:
    """Write a policy and reload the agent."""
    machine.write(POLICY, policy)
    machine.run("systemctl reload dockerd-guard")


def entries(machine: Machine, event: str) -> list[dict[str, str]]:
    """Return the agent's entries of one event."""
    return machine.journal(f"DOCKERD_GUARD_EVENT={event}")


def held_for(machine: Machine, words: str) -> list[dict[str, str]]:
    """Return the entries about held corrections whose reason contains these words.

    While dockerd is slow to answer, that is the reason, and another entry follows.
    """
    return [entry for entry in entries(machine, "held") if words in entry["MESSAGE"]]


def messages(machine: Machine, words: str) -> list[str]:
    """Return the agent's messages that contain these words."""
    return [entry["MESSAGE"] for entry in machine.journal("SYSLOG_IDENTIFIER=dockerd-guard", "--boot")
            if words in entry["MESSAGE"]]


def repaired(machine: Machine) -> list[dict[str, str]]:
    """Return the entries about corrections made by the agent."""
    return [entry for entry in entries(machine, "corrected") if entry["DOCKERD_GUARD_OUTCOME"] == "repaired"]


def settled(machine: Machine) -> None:
    """Wait until `diff` reports no difference."""
    wait_for(lambda: machine.run("dockerd-guard diff", check=False).status == 0, "host that complies")


def rests(machine: Machine, seconds: float = 1) -> bool:
    """Whether the agent used less than 10 ms of CPU time for so many seconds, while systemd had no job and no pass ran.

    A pass takes more than 20 ms, but none while it waits for dockerd or systemd. It has "/" open until it ends.
    """
    line = ("systemctl show --value --property=CPUUsageNSec dockerd-guard; systemctl show --value --property=NJobs; "
            "readlink /proc/$(systemctl show --value --property=MainPID dockerd-guard)/fd/* | grep -cx / || :")
    before, *busy, after, jobs, passes = map(int, machine.run(f"{line}; sleep {seconds}; {line}").out.split())
    return after - before < 10_000_000 and not any((*busy, jobs, passes))


def make_certificates(machine: Machine) -> None:
    """Make a CA, a server certificate for the machine's address, and a client certificate."""
    machine.run(f"""
        mkdir -p /etc/docker/client; cd /etc/docker
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.pem -days 30 -subj /CN=ca
        for name in server client; do
          openssl req -newkey rsa:2048 -nodes -keyout $name-key.pem -out $name.csr -subj /CN=$name
        done
        printf 'subjectAltName=IP:{ADDRESS}\\nextendedKeyUsage=serverAuth' > server.ext
        printf 'extendedKeyUsage=clientAuth' > client.ext
        for name in server client; do
          openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 30 \\
            -extfile $name.ext -out $name-cert.pem
        done
        mv client-cert.pem client/cert.pem; mv client-key.pem client/key.pem
        chmod 600 *-key.pem
    """)
