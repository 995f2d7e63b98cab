"""What happens to a simulated host: administrators, package upgrades, other programs, hostile writers, faults."""

from __future__ import annotations

import errno
from typing import NamedTuple

from dockerd_guard.fleet.lock import Fault
from tests.simulation.agent import RecordedJournal, SimulatedAgent
from tests.simulation.host import Crash, SimulatedHost
from tests.simulation.watch import Watch, files

DROPINS = "/etc/systemd/system/docker.service.d"
SOCKET_DROPIN = "/etc/systemd/system/docker.socket.d/port.conf"
DAEMON_JSON = "/etc/docker/daemon.json"
POLICY = "/etc/dockerd-guard/config.yaml"
OTHER_UNIT = "/etc/systemd/system/audit-ship.service"
OTHER_UNIT_TEXT = "[Service]\nExecStart=/usr/bin/audit-ship\nExecStart=/usr/bin/dockerd -H fd:// -H tcp://0.0.0.0:2375\n"


SECRET = "hunter2"
"""A value of an option, a key or a variable. It must not be logged (I11)."""


class World(NamedTuple):
    """A host, its agent, which is replaced when it is killed, and what the invariants remember."""

    host: SimulatedHost
    agents: list[SimulatedAgent]
    watch: Watch


def restart_agent(world: World) -> None:
    """systemd starts the agent again."""
    host = world.host
    host.crash_in = None
    if host.text(POLICY) == BAD_POLICY:
        # An agent without a valid policy does not start.
        host.put(POLICY, POLICIES[0])
    world.agents.append(SimulatedAgent(host, world.agents[-1].journal if world.agents else RecordedJournal()))


def exec_start(arguments: str) -> str:
    return f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {arguments}\n"


ARGUMENTS = (
    "-H fd://", "-H fd:// -H tcp://0.0.0.0:2375", "-H fd:// -H tcp://0.0.0.0:2375 --tls=false", "-H tcp://10.0.0.5:2375",
    "-H unix:///run/docker.sock", "-H fd:// -H tcp://127.0.0.1:2375", f"-H fd:// --label secret={SECRET}", "",
    "-H fd:// -H tcp://0.0.0.0:2376 --tlsverify --tlscacert=ca.pem --tlscert=cert.pem --tlskey=key.pem",
    "-H fd:// --tls --tlscert=/nowhere --tlskey=/nowhere", "-H tcp://0.0.0.0.2375", "-H fd:// $DOCKER_OPTS",
)
FAILING = ("-H fd:// --storage-driver=zfs", "-H fd:// --bridge=nope0")
JSON = (
    '{"live-restore": true}', '{"live-restore": false}', "{}", '{"live-restore": true, "hosts": ["fd://"]}',
    '{"live-restore": true, "hosts": ["fd://", "tcp://0.0.0.0:2375"]}', '{"live-restore": true, "tls": true}',
    '{"live-restore": true, "debug": true}', "{", '{"live-restore": true, "storage-driver": "zfs"}', "",
    '{"live-restore": true, "tlsverify": true, "tlscacert": "/ca.pem", "tlscert": "/c.pem", "tlskey": "/k.pem"}',
    '{"live-restore": true, "metrics-addr": "0.0.0.0:2375"}',
    f'{{"live-restore": true, "log-opts": {{"env": "{SECRET}"}}}}', '{"hosts": ["fd://", "tcp://127.0.0.1:2375"]}',
)
POLICIES = (
    "version: 1\nmode: enforce\nsockets: [fd://]\n",
    "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {restart: always}\n",
    "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {restart: never}\n",
    "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {budget: 1/1h}\n",
    "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {foreign_files: false}\n",
    "version: 1\nmode: observe\nsockets: [fd://]\n",
    "version: 1\nmode: enforce\nsockets: [fd://, {address: 'tcp://127.0.0.1:2375', tls: none}]\n",
    "version: 1\nmode: enforce\nsockets: [unix:///run/docker.sock]\n",
    "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {splay: 10min}\n",
    "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {budget: 9/1h, fleet: {lock: etcd, group: prod, endpoints: "
    "['https://lock']}}\n",
    "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {fleet: {lock: fleetlock, group: prod, endpoints: "
    "['https://lock'], unreachable: proceed}}\n",
)

BAD_POLICY = "version: 1\nsocket: [fd://]\n"


def override(world: World, variant: int) -> None:
    """An administrator writes override.conf."""
    world.host.put(f"{DROPINS}/override.conf", exec_start(ARGUMENTS[variant % len(ARGUMENTS)]))


def failing_override(world: World, variant: int) -> None:
    """An administrator asks for what this dockerd cannot do, and restarts it."""
    world.host.put(f"{DROPINS}/override.conf", exec_start(FAILING[variant % len(FAILING)]))
    world.host.reload()
    world.host.restart("admin")


def no_override(world: World, variant: int) -> None:
    """An administrator removes override.conf."""
    world.host.remove(f"{DROPINS}/override.conf")


def late_dropin(world: World, variant: int) -> None:
    """A drop-in that sorts after ours."""
    world.host.put(f"{DROPINS}/zzz-{variant % 4}.conf", exec_start(ARGUMENTS[1 + variant % 3]))


def late_link(world: World, variant: int) -> None:
    """A late drop-in that is a link to another unit."""
    world.host.link(f"{DROPINS}/zzzz.conf", OTHER_UNIT)


def copied_name(world: World, variant: int) -> None:
    """A drop-in with the name that we give to copies, and a command that has never run."""
    world.host.put(f"{DROPINS}/zy-evil.conf", "[Service]\nExecStartPre=/bin/false\n")


def no_late_dropins(world: World, variant: int) -> None:
    """An administrator cleans up."""
    for name in ("zzz-0", "zzz-1", "zzz-2", "zzz-3", "zzzz", "zzz-war", "evil"):
        world.host.remove(f"{DROPINS}/{name}.conf")
        world.host.remove(f"{DROPINS}/zy-{name}.conf")


def daemon_json(world: World, variant: int) -> None:
    """An administrator writes daemon.json."""
    world.host.put(DAEMON_JSON, JSON[variant % len(JSON)])


def daemon_json_link(world: World, variant: int) -> None:
    """daemon.json becomes a link into a repository."""
    world.host.put("/srv/config/daemon.json", JSON[variant % len(JSON)])
    world.host.link(DAEMON_JSON, "/srv/config/daemon.json")


def environment_file(world: World, variant: int) -> None:
    """/etc/default/docker opens a port, or does not."""
    texts = ("DOCKER_OPTS='-H tcp://0.0.0.0:2375'\n", "DOCKER_OPTS=\n", "#\n")
    world.host.put("/etc/default/docker", texts[variant % len(texts)])


def set_environment(world: World, variant: int) -> None:
    """systemctl set-environment, or unset-environment."""
    if variant % 2:
        world.host.environment["DOCKER_OPTS"] = "-H tcp://0.0.0.0:2375"
    else:
        world.host.environment.clear()


def code_in_dropin(world: World, variant: int) -> None:
    """A drop-in that would run other code."""
    texts = (f"[Service]\nEnvironment=LD_PRELOAD=/srv/evil.so SECRET={SECRET}\n",
             "[Service]\nExecStart=\nExecStart=/srv/x/dockerd -H fd://\n")
    world.host.put(f"{DROPINS}/code.conf", texts[variant % 2])


def no_code_in_dropin(world: World, variant: int) -> None:
    """It is removed."""
    world.host.remove(f"{DROPINS}/code.conf")


def own_dropin(world: World, variant: int) -> None:
    """Somebody removes or rewrites our drop-in."""
    path = f"{DROPINS}/zz-dockerd-guard.conf"
    if world.host.text(path) is not None:
        if variant % 2:
            world.host.remove(path)
        else:
            world.host.put(path, exec_start(ARGUMENTS[1]))


def socket_unit(world: World, variant: int) -> None:
    """docker.socket gets a TCP port: beside its path, instead of it, with a command too; or loses it."""
    if variant % 2:
        text = "[Socket]\n" + "ListenStream=\n" * (variant % 6 > 1) + "ListenStream=2375\n"
        world.host.put(SOCKET_DROPIN, text + "ExecStartPre=/srv/x/pre\n" * (variant % 6 > 3))
    else:
        world.host.remove(SOCKET_DROPIN)


def reload(world: World, variant: int) -> None:
    """systemctl daemon-reload."""
    world.host.reload()


def restart(world: World, variant: int) -> None:
    """systemctl restart docker, or stop and start docker.socket with it."""
    if variant % 5 == 4:
        world.host.stop("admin")
        world.host.start_socket()
        world.host.start("admin")
    else:
        world.host.restart("admin")


def stop(world: World, variant: int) -> None:
    """systemctl stop docker."""
    world.host.stop("admin")


def start(world: World, variant: int) -> None:
    """systemctl reset-failed docker; systemctl start docker."""
    world.host.reset_failed()
    if world.host.running is None:
        world.host.start("admin")


def reload_dockerd(world: World, variant: int) -> None:
    """systemctl reload docker."""
    world.host.reload_dockerd()


def policy(world: World, variant: int) -> None:
    """Another policy."""
    world.host.put(POLICY, POLICIES[variant % len(POLICIES)])


def bad_policy(world: World, variant: int) -> None:
    """A policy with an error in it."""
    world.host.put(POLICY, BAD_POLICY)


def containers(world: World, variant: int) -> None:
    """docker run, or docker rm."""
    if world.host.running is not None:
        world.host.containers = set(range(variant % 3))


def flush(world: World, variant: int) -> None:
    """nft flush ruleset."""
    world.host.blocked = ()
    world.agents[-1].controller.containment.restore()


def disk(world: World, variant: int) -> None:
    """The disk is full, read-only, or works."""
    world.host.disk_errno = (0, 0, errno.ENOSPC, errno.EROFS, errno.EIO)[variant % 5]


def bus(world: World, variant: int) -> None:
    """D-Bus goes away, or comes back."""
    world.host.bus_is_gone = bool(variant % 2)


def nftables(world: World, variant: int) -> None:
    """python3-nftables is removed, or installed."""
    world.host.nftables_is_gone = bool(variant % 2)


def engine(world: World, variant: int) -> None:
    """The engine hangs, or answers."""
    world.host.engine_is_silent = bool(variant % 2)


def dockerd_faults(world: World, variant: int) -> None:
    """dockerd dies some seconds after each start, starts slowly, hangs when it is stopped, or is well."""
    world.host.dies_after_s = (None, None, 1.0, 5.0, 20.0)[variant % 5]
    world.host.is_slow = variant % 7 == 0
    world.host.stop_hangs = variant % 11 == 0


def next_start(world: World, variant: int) -> None:
    """dockerd is exposed; when it is started next, it fails or binds nothing, which no file shows before."""
    world.host.containers.clear()
    _exposed(world)
    world.host.next_starts = [("refuses", "deaf")[variant % 2]]


def port_in_use(world: World, variant: int) -> None:
    """Another program listens on the port that a policy declares: now, or from the next stop of dockerd on."""
    host, address = world.host, "tcp://127.0.0.1:2375"
    host.put(POLICY, POLICIES[6])
    if variant % 3 == 0:
        host.binds_at_stop = (address, (0.2, 2.0, 30.0, 5000.0)[variant % 4])
    elif variant % 3 == 1 and not (host.running is not None and address in host.running.layer.hosts):
        host.foreign_listener = address
    else:
        host.free_port()


def full_in_between(world: World, variant: int) -> None:
    """The disk is full after some writes of a correction, of a late drop-in say."""
    late_dropin(world, variant)
    world.host.full_in = variant % 8


def interference(world: World, variant: int) -> None:
    """Another program writes to a file that a correction has just written, which then fails."""
    late_dropin(world, variant)
    if variant % 2:
        world.host.reload()
        world.host.restart("admin")
        world.host.next_starts = ["refuses"]
    world.host.interferes = f"# {variant}\n"


def dies(world: World, variant: int) -> None:
    """dockerd is restarted and dies again and again, until systemd gives up; then the cause is gone."""
    host = world.host
    dies_after_s = host.dies_after_s
    host.reset_failed()
    host.dies_after_s = 1.0
    host.restart("admin")
    host.clock.sleep(60)
    host.dies_after_s = dies_after_s


def dies_again(world: World, variant: int) -> None:
    """It does so after each of some corrections that needed no restart."""
    for number in range(variant % 7):
        late_dropin(world, number)
        _pass(world)
        dies(world, variant)
        _pass(world)


def silent_with_containers(world: World, variant: int) -> None:
    """Containers run without live-restore, a port is open, and the engine does not answer."""
    world.host.put(DAEMON_JSON, JSON[1])
    _exposed(world)
    if world.host.running is not None:
        world.host.containers = {1, 2}
    world.host.engine_is_silent = True


def down_with_containers(world: World, variant: int) -> None:
    """Containers outlive a dockerd that does not start any more; live-restore is off in the file now.

    It failed because of its TLS flags, or with a correction and a pending option that is gone again.
    """
    host = world.host
    host.put(DAEMON_JSON, JSON[0])
    if variant % 2:
        host.put(f"{DROPINS}/override.conf", exec_start("-H fd://"))
        host.reload()
        host.reset_failed()
        host.restart("admin")
        host.put(f"{DROPINS}/override.conf", exec_start(ARGUMENTS[1]))
        _pass(world)
    host.containers = {1, 2} if host.running is not None else set()
    host.put(DAEMON_JSON, '{"storage-driver": "zfs"}' if variant % 2 else JSON[1])
    if not variant % 2:
        host.put(f"{DROPINS}/override.conf", exec_start(ARGUMENTS[9]))
        host.reload()
    host.restart("admin")
    host.clock.sleep(60)
    host.put(DAEMON_JSON, JSON[1])


def killed_again(world: World, variant: int) -> None:
    """The agent is killed within one correction after the other."""
    for number in range(variant % 7):
        _exposed(world)
        world.host.crash_in = 6 + (variant + number) % 10
        try:
            _pass(world)
        except Crash:
            restart_agent(world)
    world.host.crash_in = None


def clock(world: World, variant: int) -> None:
    """The wall clock is set."""
    world.host.clock.wall_offset_s += (3600, -3600, 86400 * 30, -86400)[variant % 4]


def kill(world: World, variant: int) -> None:
    """The agent is killed at one of its next system calls."""
    world.host.crash_in = variant % 12


def kill_dockerd(world: World, variant: int) -> None:
    """dockerd is killed; systemd starts it again after a while."""
    world.host.kill()


def manual_fix(world: World, variant: int) -> None:
    """dockerd-guard fix."""
    if not world.host.bus_is_gone:
        world.agents[-1].fix()


def _pass(world: World, *, retry: bool = False) -> None:
    """A pass in the middle of an action, whose end alone is checked."""
    then, began = files(world.host), world.host.clock.seconds
    world.watch.others_changed(then)
    world.host.met.clear()
    try:
        world.agents[-1].run_pass(retry=retry)
    finally:
        # The agent may be killed in it.
        world.watch.in_force_since(world.agents[-1].controller.policy, began)
        world.watch.we_changed(world.watch.with_others(then, world.host.met), files(world.host))
        world.watch.failure = None
        if world.host.met:
            # What answers during a pass may not be what was observed, and is asked again.
            del world.host.probes[world.host.probed_before:]


def reload_agent(world: World, variant: int) -> None:
    """systemctl reload dockerd-guard."""
    _pass(world, retry=True)


def _exposed(world: World) -> None:
    """An administrator follows the usual guide."""
    world.host.put(f"{DROPINS}/override.conf", exec_start(ARGUMENTS[1 + world.host.clock.wall.second % 2]))
    world.host.reload()
    world.host.restart("admin")


def spread(world: World, variant: int) -> None:
    """A port is opened where the policy spreads restarts; some time later it is the turn of every host."""
    world.host.put(POLICY, POLICIES[8])
    _pass(world)
    _exposed(world)
    if variant % 2:
        _pass(world)
        world.host.clock.sleep(600)


def fleet(world: World, variant: int) -> None:
    """A port is opened on a host of a fleet, whose lock service does what it wants."""
    host, lock = world.host, world.host.lock
    host.put(POLICY, POLICIES[9 + variant // 16 % 2])
    lock.is_gone, lock.fault, lock.forgets = variant % 8 == 0, None, ""
    if variant % 8 == 1:
        lock.fault = (Fault.FULL, Fault.STOPPED, Fault.INVALID, Fault.UNREACHABLE)[variant // 8 % 4]
    elif variant % 8 == 2:
        lock.forgets = ("before", "during")[variant // 8 % 2]
    elif variant % 8 == 3:
        host.crash_in = 4 + variant // 8 % 16
    elif variant % 8 == 4:
        host.next_starts = ["refuses", "refuses", "refuses"]
    _exposed_by_file(world)


def lock_service(world: World, variant: int) -> None:
    """The lock service goes away or comes back, gets full or free; an administrator resumes the group."""
    lock = world.host.lock
    lock.is_gone, lock.fault, lock.stopped = variant % 4 == 0, Fault.FULL if variant % 4 == 1 else None, ""


def _exposed_by_file(world: World) -> None:
    """The usual guide, without the restart of a correction that is just being made."""
    crash_in, next_starts = world.host.crash_in, world.host.next_starts
    world.host.crash_in, world.host.next_starts = None, []
    _exposed(world)
    world.host.crash_in, world.host.next_starts = crash_in, next_starts


def live_restore_in_file_only(world: World, variant: int) -> None:
    """Containers run, and live-restore was changed in daemon.json without a reload of dockerd, either way."""
    before, after = JSON[:2] if variant % 2 else (JSON[1], JSON[0])
    world.host.put(DAEMON_JSON, before)
    _exposed(world)
    world.host.containers = {1, 2}
    world.host.put(DAEMON_JSON, after)


def pending_failure(world: World, variant: int) -> None:
    """dockerd is exposed, and a restart would also apply what it cannot start with."""
    _exposed(world)
    pending_ = variant % 4
    if pending_ == 0:
        world.host.put(DAEMON_JSON, '{"live-restore": true, "storage-driver": "zfs"}')
    elif pending_ == 1:
        world.host.put(DAEMON_JSON, '{"live-restore": true, "tls": true}')
    elif pending_ == 2:
        world.host.put(f"{DROPINS}/zy-evil.conf", "[Service]\nExecStartPre=/bin/false\n")
    else:
        world.host.put(f"{DROPINS}/pre.conf", "[Service]\nExecStartPre=/bin/false\n")


def late_link_in_force(world: World, variant: int) -> None:
    """A late drop-in that is a link to another unit opens a port."""
    world.host.link(f"{DROPINS}/zzzz.conf", OTHER_UNIT)
    world.host.reload()
    world.host.restart("admin")


def war(world: World, variant: int) -> None:
    """Another program undoes the correction, some times."""
    for _ in range(variant % 6):
        _exposed(world)
        world.host.put(f"{DROPINS}/zzz-war.conf", exec_start(ARGUMENTS[1]))
        world.agents[-1].controller.changed()
        _pass(world)
        world.host.clock.sleep(1.0)
    world.host.remove(f"{DROPINS}/zzz-war.conf")


def later(world: World, variant: int) -> None:
    """Nothing happens for a while."""
    world.host.clock.sleep((0.05, 1.0, 30.0, 600.0, 7200.0)[variant % 5])
