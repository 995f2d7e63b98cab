"""A random history of a host, from a seed: what people and programs do to Docker, to its files and to the agent."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from typing import NamedTuple

from tests.machines.machine import ADDRESS, ADDRESS_IPV6, Machine
from tests.support.access_paths import BRIDGE, UNITS, container
from tests.support.correction import DOCKERD, OVERRIDE, POLICY, SOCKET_OVERRIDE

ENGINE = "/usr/local/sbin/engine"
"""A copy of dockerd under another name."""

DAEMON_JSON = "/etc/docker/daemon.json"
TCP_SOCKET = f"{UNITS}/docker-tcp.socket"

PORTS = (2375, 2376, 4243, 4244, 4245, 5000, 7000, 7001, 8000)
"""The ports that the history uses. Nothing but a web server listens on 8000, and 4244 is in another namespace."""

API_PORTS = PORTS[:-1]

FILES = {"tlscacert": "/etc/docker/ca.pem", "tlscert": "/etc/docker/server-cert.pem",
         "tlskey": "/etc/docker/server-key.pem"}
TLS = " ".join(f"--{name}={path}" for name, path in FILES.items())

ANNOUNCED_S, UNANNOUNCED_S = 7.0, 42.0
"""How long the agent may take to notice: files and units announce themselves, programs started by hand are found by
the comparison every 30 s."""

ACTION_S = 120.0

# Options of dockerd that open ports, or do not.
HOSTS = (
    "-H fd://",
    "-H fd:// -H tcp://0.0.0.0:2375 --tls=false",
    "-H fd:// -H tcp://:2375 --tls=false",
    "-H fd:// -H tcp://0.0.0.0:2375 --tls=false",
    "-H fd:// -H tcp://127.0.0.1:2375 --tls=false",
    f"-H fd:// -H tcp://[{ADDRESS_IPV6}]:2375 --tls=false",
    f"-H fd:// -H tcp://{ADDRESS}:2375 --tls=false",
    f"-H fd:// -H tcp://0.0.0.0:2376 --tlsverify {TLS}",
    f"-H fd:// -H tcp://0.0.0.0:2375 --tlsverify {TLS}",
    f"-H fd:// -H tcp://[::]:2376 --tlsverify=false {TLS}",
    f"-H fd:// -H tcp://127.0.0.1:2375 -H tcp://{ADDRESS}:2376 --tls=false",
    "-H unix:///run/docker.sock -H tcp://0.0.0.0:2375 --tls=false",
    "-H fd:// $DOCKER_OPTS",
    "",
)

# What an editor writes into daemon.json, with or without a restart.
KEYS: tuple[dict[str, object], ...] = (
    {},
    {"tlsverify": True, **FILES},
    {"tls": True, **FILES},
    {"hosts": ["fd://", "tcp://0.0.0.0:2375"], "tls": False},
    {"hosts": ["unix:///run/docker.sock", "tcp://0.0.0.0:2376"], "tlsverify": True, **FILES},
    {"metrics-addr": "0.0.0.0:2375", "experimental": True},
    {"userland-proxy": False},
)

POLICIES = (
    "sockets: [fd://]\n",
    "sockets: [fd://]\n",
    "sockets:\n  - fd://\n  - {address: 'tcp://0.0.0.0:2376', tls: mutual}\n"
    "tls: {ca: /etc/docker/ca.pem, cert: /etc/docker/server-cert.pem, key: /etc/docker/server-key.pem}\n",
    "sockets:\n  - fd://\n  - {address: 'tcp://127.0.0.1:2375', tls: none}\n",
    "sockets:\n  - fd://\n  - {address: 'tcp://0.0.0.0:2375', tls: mutual}\n"
    "tls: {ca: /etc/docker/ca.pem, cert: /etc/docker/server-cert.pem, key: /etc/docker/server-key.pem}\n",
)

SECOND = "-H tcp://{host}:{port} --data-root=/srv/{name} --exec-root=/run/{name} --pidfile=/run/{name}.pid " \
         "--bridge=two0 --iptables=false --ip6tables=false"


class Action(NamedTuple):
    """Something that happens: a shell line, and in how many seconds after its end the agent knows of it."""

    name: str
    line: str
    noticed_s: float = ANNOUNCED_S


class History:
    """What happens to a machine, one action after another."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self._machine = machine
        self._choose = random.Random(seed)
        self._running: subprocess.Popen[str] | None = None
        # Otherwise a short history may open nothing, or nothing that is blocked.
        self._opening = [(1, self._open), (1, self._second_dockerd), (1, self._forwarder), (1, self._container),
                         (1, self._enforce)]
        self.rows: list[tuple[int, Callable[[], Action]]] = [
            (10, self._drop_in), (5, self._open), (8, self._daemon_json), (4, self._socket_unit),
            (7, self._docker_unit), (3, self._variables), (8, self._second_dockerd),
            (7, self._forwarder), (7, self._container), (4, self._flush), (6, self._agent), (8, self._policy),
            (3, self._enforce), (2, self._web_server), (1, self._clean)]

    def begin(self) -> Action:
        """Begin a random action, and return it. It may still run when this returns."""
        rows = self._opening[:1] or self.rows
        del self._opening[:1]
        action = self._choose.choices([make for _, make in rows], [weight for weight, _ in rows])[0]()
        self._running = self._machine.popen(
            ["sh", "-c", f"{action.line}"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        return action

    @property
    def is_over(self) -> bool:
        """Whether the last action has ended."""
        return self._running is None or self._running.poll() is not None

    def finish(self) -> None:
        """Wait until the last action has ended."""
        if self._running is not None:
            self._running.wait(ACTION_S)
        self._running = None

    def pause_s(self) -> float:
        """How long to wait after the beginning of an action before a moment is looked at."""
        return self._choose.choice((0.0, self._choose.uniform(0, 1), self._choose.uniform(1, 4),
                                    self._choose.uniform(3, 6)))

    def is_quiet(self) -> bool:
        """Whether nothing happens before this moment, for long enough that the agent finds everything by itself."""
        return self._choose.random() < 0.02

    def is_later(self) -> bool:
        """Whether another moment after the last action is looked at, instead of another action."""
        return self._choose.random() < 0.5

    def is_nudged(self) -> bool:
        """Whether somebody reloads the agent before this moment, which then looks at everything."""
        return self._choose.random() < 0.25

    # Actions

    def _effect(self) -> str:
        """The shell line after an edit: nothing, a reload, or also a restart."""
        reset = "systemctl reset-failed docker.service docker.socket 2>/dev/null; "
        return self._choose.choice((
            "true", "systemctl daemon-reload", "systemctl reload docker",
            f"{reset}systemctl restart docker", f"{reset}systemctl daemon-reload; systemctl restart docker",
            f"{reset}systemctl daemon-reload; systemctl restart docker",
            f"{reset}systemctl daemon-reload; systemctl restart docker",
            "systemctl stop docker.socket docker.service; systemctl daemon-reload; " + reset
            + "systemctl start docker.socket docker.service"))

    def _edit(self, name: str, path: str, text: str) -> Action:
        effect = self._effect()
        write = f"mkdir -p $(dirname {path}); cat >{path} <<'END'\n{text}\nEND\n"
        return Action(f"{name}; {effect}", f"{write}{effect}")

    def _drop_in(self) -> Action:
        hosts, program = self._choose.choice(HOSTS), self._choose.choice((DOCKERD, DOCKERD, DOCKERD, ENGINE))
        if self._choose.random() < 0.2:
            effect = self._effect()
            return Action(f"no drop-in; {effect}", f"rm -f {OVERRIDE}; {effect}")
        namespace = self._choose.choice(("", "", "", "", "", "", "", "NetworkNamespacePath=/run/netns/vpn\n"))
        return self._edit(f"drop-in {namespace.strip()} {program} {hosts}", OVERRIDE,
                          f"[Service]\n{namespace}ExecStart=\nExecStart={program} {hosts}")

    def _open(self) -> Action:
        hosts = self._choose.choice([each for each in HOSTS if "tcp://" in each])
        text = f"[Service]\nExecStart=\nExecStart={DOCKERD} {hosts}"
        return Action(f"open {hosts}", f"mkdir -p $(dirname {OVERRIDE}); cat >{OVERRIDE} <<'END'\n{text}\nEND\n"
                      "systemctl reset-failed docker; systemctl daemon-reload; systemctl restart docker")

    def _daemon_json(self) -> Action:
        keys = self._choose.choice(KEYS)
        text = json.dumps({"live-restore": True, **keys})
        if self._choose.random() < 0.1:
            text = text[:-5]
        return self._edit(f"daemon.json {text}", DAEMON_JSON, text)

    def _socket_unit(self) -> Action:
        stream = self._choose.choice(("0.0.0.0:2375", "2375", "127.0.0.1:2375", f"[{ADDRESS_IPV6}]:2376"))
        restart = "systemctl stop docker.socket docker.service; systemctl daemon-reload; " \
                  "systemctl reset-failed docker.service 2>/dev/null; systemctl start docker.socket docker.service"
        match self._choose.randrange(4):
            case 0:
                effect = self._choose.choice(("true", "systemctl daemon-reload", restart))
                return Action(f"no ListenStream; {effect}", f"rm -f {SOCKET_OVERRIDE}; {effect}")
            case 1:
                unit = f"[Socket]\nListenStream={stream}\nService=docker.service"
                start = restart.replace("start docker.socket", "start docker-tcp.socket docker.socket")
                return Action(f"docker-tcp.socket {stream}", f"cat >{TCP_SOCKET} <<'END'\n{unit}\nEND\n{start}")
            case _:
                return self._edit(f"ListenStream={stream}", SOCKET_OVERRIDE, f"[Socket]\nListenStream={stream}"
                                  )._replace(line=f"mkdir -p $(dirname {SOCKET_OVERRIDE}); printf '[Socket]\\n"
                                             f"ListenStream={stream}\\n' >{SOCKET_OVERRIDE}; {restart}")

    def _docker_unit(self) -> Action:
        line = self._choose.choice((
            "systemctl restart docker", "systemctl stop docker", "systemctl start docker",
            "systemctl stop docker docker.socket", "systemctl start docker.socket", "systemctl kill -s KILL docker",
            "systemctl reset-failed docker; systemctl start docker", "systemctl reload docker",
            "systemctl reset-failed docker; systemctl restart docker", "service docker restart"))
        return Action(line, line)

    def _variables(self) -> Action:
        line = self._choose.choice((
            "systemctl set-environment DOCKER_OPTS='-H tcp://0.0.0.0:2375 --tls=false'",
            "systemctl unset-environment DOCKER_OPTS",
            "systemctl unset-environment DOCKER_OPTS",
            "echo 'DOCKER_OPTS=\"-H tcp://0.0.0.0:2375 --tls=false\"' >/etc/default/docker",
            "echo >/etc/default/docker"))
        line = f"{line}; {self._effect()}"
        # Nothing announces set-environment.
        return Action(line, line, UNANNOUNCED_S)

    def _second_dockerd(self) -> Action:
        kind = self._choose.randrange(6)
        if kind == 0:
            line = "systemctl stop two.scope three.scope four.scope"
            return Action(line, line)
        name, port, program = (("two", 4243, DOCKERD), ("three", 4244, f"nsenter --net=/run/netns/vpn {DOCKERD}"),
                               ("four", 4245, ENGINE))[kind % 3]
        host = self._choose.choice(("0.0.0.0", "127.0.0.1", f"[{ADDRESS_IPV6}]", "[::]"))
        if name == "three":
            host = "0.0.0.0"
        tls = self._choose.choice(("--tls=false", "--tls=false", f"--tlsverify {TLS}", f"--tlsverify=false {TLS}"))
        arguments = SECOND.format(host=host, port=port, name=name)
        # The action ends when it listens, which nothing announces, or ends.
        listens = f"{'ip netns exec vpn ' * (name == 'three')}ss -Hltn sport = :{port} | grep -q ."
        return Action(f"{name}: {program} {host}:{port} {tls}", f"systemctl stop {name}.scope; systemctl reset-failed "
                      f"{name}.scope; systemd-run --quiet --scope --unit={name} {program} {arguments} {tls} "
                      f"</dev/null >/dev/null 2>&1 & while kill -0 $! && ! {listens}; do sleep 0.1; done",
                      UNANNOUNCED_S)

    def _forwarder(self) -> Action:
        if self._choose.random() < 0.3:
            line = "systemctl stop relay.service; kill $(cat /run/relay.pid)"
            return Action(line, line, UNANNOUNCED_S)
        where = self._choose.choice(("TCP-LISTEN:5000", "TCP6-LISTEN:5000", "TCP-LISTEN:5000,bind=127.0.0.1"))
        socat = f"socat {where},fork,reuseaddr UNIX-CONNECT:/run/docker.sock"
        if self._choose.random() < 0.5:
            return Action(socat, f"systemctl reset-failed relay; systemd-run --unit=relay {socat}", UNANNOUNCED_S)
        return Action(f"by hand: {socat}", "kill $(cat /run/relay.pid); setsid sh -c 'echo $$ >/run/relay.pid; "
                      f"exec {socat}' </dev/null >/dev/null 2>&1 &", UNANNOUNCED_S)

    def _container(self) -> Action:
        remove = "docker rm --force relay"
        if self._choose.random() < 0.3:
            return Action(remove, remove, UNANNOUNCED_S)
        options = self._choose.choice((
            "--publish=7000:7000 --volume=/run/docker.sock:/s.sock", "--publish=7000:7000 --volume=/run:/s",
            "--publish=127.0.0.1:7000:7000 --volume=/run/docker.sock:/s.sock"))
        line = container(options, "/s/docker.sock" if "/s " in f"{options} " else "/s.sock")
        return Action(f"container {options}", f"{remove}; timeout 20 {line}", UNANNOUNCED_S)

    def _flush(self) -> Action:
        line = self._choose.choice(("nft flush ruleset", "nft delete table inet dockerd_guard"))
        return Action(line, line)

    def _agent(self) -> Action:
        line = self._choose.choice((
            "systemctl restart dockerd-guard", "systemctl kill -s KILL dockerd-guard",
            "systemctl stop dockerd-guard; sleep 3; systemctl start dockerd-guard",
            "systemctl reload dockerd-guard", "systemctl restart dockerd-guard-network.socket"))
        # Restart= waits 5 s.
        return Action(line, line, 2 * ANNOUNCED_S)

    def _policy(self) -> Action:
        mode = self._choose.choice(("observe", "observe", "enforce"))
        restart = self._choose.choice(("never", "never", "always", "live-restore"))
        contain = self._choose.choice(("true", "true", "true", "false"))
        resync = self._choose.choice(("5min", "5min", "2s"))
        text = (f"version: 1\nmode: {mode}\n{self._choose.choice(POLICIES)}"
                f"correct: {{budget: 1000/1h, restart: {restart}, contain: {contain}}}\nwatch: {{resync: {resync}}}\n")
        if self._choose.random() < 0.05:
            text += "colour: red\n"
        reload = self._choose.choice(("true", "systemctl reload dockerd-guard"))
        return Action(f"policy {' '.join(text.split())}; {reload}", f"cat >{POLICY} <<'END'\n{text}END\n{reload}",
                      2 * ANNOUNCED_S)

    def _enforce(self) -> Action:
        text = "version: 1\nmode: enforce\nsockets: [fd://]\ncorrect: {budget: 1000/1h, restart: never}\n"
        return Action("block what is open", f"cat >{POLICY} <<'END'\n{text}END\nsystemctl reload dockerd-guard")

    def _web_server(self) -> Action:
        line = self._choose.choice((
            "systemctl reset-failed web; systemd-run --unit=web python3 -m http.server --bind :: 8000",
            "systemctl stop web"))
        return Action(line, line, UNANNOUNCED_S)

    def _clean(self) -> Action:
        line = (f"rm -f {OVERRIDE} {SOCKET_OVERRIDE}; echo '{{\"live-restore\": true}}' >{DAEMON_JSON}; "
                f"systemctl disable --now docker-tcp.socket; rm -f {TCP_SOCKET}; echo >/etc/default/docker; "
                "systemctl unset-environment DOCKER_OPTS; systemctl stop two.scope three.scope four.scope relay web; "
                "kill $(cat /run/relay.pid); systemctl stop docker.socket docker.service; systemctl daemon-reload; "
                "systemctl reset-failed; systemctl start docker.socket docker.service dockerd-guard; "
                "docker rm --force relay")
        return Action("clean up", line, UNANNOUNCED_S)


def prepare(machine: Machine) -> None:
    """Make what the actions need."""
    machine.import_busybox()
    machine.run(f"cp {DOCKERD} {ENGINE}; ip netns add vpn; ip -n vpn link set lo up; {BRIDGE}"
                "ip netns exec vpn ip link add two0 type bridge; ip -n vpn address add 172.31.0.1/24 dev two0; "
                "ip -n vpn link set two0 up")
