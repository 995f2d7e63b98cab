"""What dockerd-guard says of a machine, and where that differs from what is so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import yaml

from tests.machines.machine import Machine
from tests.support.host_facts import API, TLS_OF, Facts, Listener

AS_DECLARED = "Docker listens as declared"

API_SOCKET = ("unix:///run/docker.sock", "unix:///var/run/docker.sock")

UNANSWERED = 2
"""The exit status of a verb that says that it cannot answer, as with an invalid policy."""

POLICY_KEYS = frozenset(("version", "mode", "sockets", "socket_unit", "tls", "rootless", "correct", "watch", "waive"))

CODES = ("DG101", "DG103", "DG104", "DG105", "DG107", "DG108", "DG110")
"""The rules that say that an address is open."""

# Prints what each verb says, with its exit status, and what the agent says.
ASK = r"""
import json, subprocess
said = {}
for names in ("lint",), ("status", "sockets", "diff"):
    begun = {name: subprocess.Popen(["dockerd-guard", name, *["--format=json"] * (name != "diff")], text=True,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE) for name in names}
    said |= {name: [*process.communicate(), process.returncode] for name, process in begun.items()}
try:
    said["file"] = open("/run/dockerd-guard/status.json").read()
except OSError:
    said["file"] = ""
said["line"] = subprocess.run(["systemctl", "show", "dockerd-guard", "--value", "--property=StatusText"],
                              capture_output=True, text=True).stdout
print(json.dumps(said))
"""

_ADDRESS = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[0-9.]+|):(\d+)")


class Said(NamedTuple):
    """What the verbs and the agent said. The JSON values are empty where the verb failed."""

    sockets: dict[str, Any]
    lint: dict[str, Any]
    status: dict[str, Any]
    diff: str
    statuses: dict[str, int]
    """The exit status of each verb."""
    errors: str
    agent: dict[str, Any]
    line: str
    """The STATUS= line of the agent."""


class Place(NamedTuple):
    """An address that a statement names."""

    host: str
    port: int

    def is_held(self, listener: Listener) -> bool:
        """Whether this socket of the kernel is meant."""
        wildcards = ("*", "::", "0.0.0.0", "")
        return listener.port == self.port and (
            listener.host == self.host or (listener.host in wildcards and self.host in wildcards))


def ask(machine: Machine) -> Said:
    """Let every verb and the agent speak."""
    said = json.loads(machine.run(["python3", "-c", ASK]).out)

    def value(name: str) -> dict[str, Any]:
        return json.loads(said[name][0]) if said[name][0].startswith("{") else {}

    verbs = ("sockets", "lint", "status", "diff")
    return Said(value("sockets"), value("lint"), value("status"), said["diff"][0],
                {name: said[name][2] for name in verbs}, "".join(said[name][1] for name in verbs),
                json.loads(said["file"]) if said["file"] else {}, said["line"])


def places(text: str) -> list[Place]:
    return [Place(host.strip("[]"), int(port)) for host, port in _ADDRESS.findall(text)]


def mismatches(so: Facts, said: Said, *, agent_knows: bool) -> list[str]:
    """Return one line for each statement that is not true. `agent_knows`: the agent has had the time to notice the
    last change of the host; of what it has published before nothing but the blocked ports is judged."""
    found = [*_open(so, said, agent_knows=agent_knows), *_tls(so, said), *_listening(so, said),
             *_socket_file(so, said), *_contained(so, said), *_agent(so, said, agent_knows=agent_knows)]
    for name, findings in (("lint", said.lint.get("findings", [])), ("status", said.status.get("findings", [])),
                           *([("agent", said.agent.get("drifts", []))] if agent_knows else [])):
        for finding in findings:
            found += (f"{name}: {why}: {finding['message']}" for why in _finding(so, finding))
    return list(dict.fromkeys(found))


def valid_policy(so: Facts) -> dict[str, Any]:
    """The policy file, empty if it is invalid. Then the verbs judge without a policy, and the agent by the last valid
    one."""
    try:
        policy = yaml.safe_load(so.policy)
    except yaml.YAMLError:
        return {}
    return policy if isinstance(policy, dict) and policy.keys() <= POLICY_KEYS else {}


def declared(so: Facts) -> dict[Place, str]:
    """The TCP addresses that the policy declares, with their TLS."""
    sockets = valid_policy(so).get("sockets", [])
    rows = [each if isinstance(each, dict) else {"address": each} for each in sockets]
    return {place: row.get("tls", "mutual") for row in rows for place in places(row["address"])}


def _is_declared(so: Facts, address: str, port: int, answer: str) -> bool:
    wanted = {tls for place, tls in declared(so).items() for each in so.at(port)
              if place.is_held(each) and each.covers(address)}
    strength = ("none", "server", "mutual")
    return any(strength.index(TLS_OF[answer]) >= strength.index(tls) for tls in wanted)


def _names(findings: list[dict[str, Any]], port: int) -> bool:
    return any(finding["code"] in CODES and re.search(rf":{port}(?!\d)", finding["message"]) for finding in findings)


def _open(so: Facts, said: Said, *, agent_knows: bool) -> Iterator[str]:
    """Everything that answers outside against the policy is said to be exposed, and nothing is as declared then."""
    for (address, port), answer in so.outside.items():
        if answer not in API:
            continue
        owner = so.owner(address, port)
        where = f"{address} port {port} ({answer}, {owner})"
        is_declared = _is_declared(so, address, port, answer) and owner == "main"
        yield from _not_in_sockets(said, port, owner, where)
        if is_declared and answer == "mutual":
            continue
        # No rule without a policy is about TLS that authenticates its clients.
        is_unknown = not valid_policy(so) and answer == "mutual"
        if not is_unknown:
            yield from _not_reported(said, "lint", said.lint, port, where)
        if is_declared:
            continue
        if not is_unknown:
            yield from _not_reported(said, "status", said.status, port, where)
        if said.status.get("wrong") == []:
            yield f"status says that nothing is wrong while {where} is open"
        if f"Nothing to change: {AS_DECLARED}" in said.diff:
            yield f"diff says {said.diff.strip()!r} while {where} is open"
        if agent_knows and said.status.get("agent", {}).get("alive") and not is_unknown:
            if AS_DECLARED in said.line:
                yield f"the agent says as declared while {where} is open"
            if not _names(said.agent.get("drifts", []), port):
                yield f"the agent has no drift for {where}"


def _not_reported(said: Said, verb: str, value: dict[str, Any], port: int, where: str) -> Iterator[str]:
    if said.statuses[verb] == UNANSWERED:
        return
    if not _names(value.get("findings", []), port):
        yield f"{verb} does not report {where}"
    if said.statuses[verb] != 1:
        yield f"{verb} exits with {said.statuses[verb]} while {where} is open: {said.errors}"


def _not_in_sockets(said: Said, port: int, owner: str, where: str) -> Iterator[str]:
    bindings = {"main": _bindings(said.sockets.get("layers", {}).get("listening")),
                "second": [each for other in said.sockets.get("others", []) for each in _bindings(other)]}
    if owner in bindings and not any(
            place.port == port for each in bindings[owner] for place in places(each["address"])):
        yield f"sockets does not show {where}"


def _bindings(layer: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [each for each in (layer or {}).get("bindings", []) if each["address"].startswith("tcp://")]


def _tls(so: Facts, said: Said) -> Iterator[str]:
    """The TLS of what listens is that of its answers."""
    layers = said.sockets.get("layers", {})
    stated = [(f"sockets, {name}", each["address"], each["tls"]) for name in ("running", "listening")
              for each in _bindings(layers.get(name)) if "network_namespace" not in each]
    stated += [("sockets, others", each["address"], each["tls"]) for other in said.sockets.get("others", [])
               for each in _bindings(other) if "network_namespace" not in each]
    stated += [(f"status, {name}", row["address"], row["layers"][name]) for row in said.status.get("sockets", [])
               for name in ("running", "listening")
               if row["address"].startswith("tcp://") and "network_namespace" not in row]
    for name, address, tls in stated:
        for place in places(address):
            answers = {TLS_OF[answer] for answer in _answers(so, place) if answer in TLS_OF}
            if tls in TLS_OF.values() and answers and tls not in answers:
                yield f"{name} says tls {tls} of {address}, which answers as {sorted(answers)}"


def _answers(so: Facts, place: Place) -> set[str]:
    return so.answers(place.port) if any(place.is_held(each) for each in so.at(place.port)) else set()


def _listening(so: Facts, said: Said) -> Iterator[str]:
    """What is said to listen is a socket of the kernel, and the other way around."""
    layers = said.sockets.get("layers", {})
    held = [each for each in so.listeners if so.main_pid in each.pids and so.main_pid]
    for each in _bindings(layers.get("listening")):
        if "network_namespace" not in each and not any(
                place.is_held(socket) for place in places(each["address"]) for socket in held):
            yield f"sockets says that {each['address']} listens, and the kernel has no such socket"
    for other in said.sockets.get("others", []):
        for each in _bindings(other):
            owns = [socket for socket in so.listeners if other["pid"] in socket.pids]
            if "network_namespace" not in each and not any(
                    place.is_held(socket) for place in places(each["address"]) for socket in owns):
                yield f"sockets says that dockerd {other['pid']} listens on {each['address']}; it does not"
    for row in said.status.get("sockets", []):
        for place in places(row["address"]):
            cell, sockets = row["layers"]["listening"], [each for each in so.listeners if place.is_held(each)]
            if isinstance(cell, str) and not sockets and "network_namespace" not in row:
                yield f"status says that {row['address']} listens ({cell}), and the kernel has no such socket"
            if cell is False and any(each in held and so.answers(each.port) & set(API) for each in sockets):
                yield f"status says that {row['address']} does not listen; it does"
            if cell == "systemd" and not any(1 in each.pids for each in sockets):
                yield f"status says that systemd holds {row['address']}; it does not"
    ours = {each.pid for each in so.dockerds if each.is_of_docker_service}
    if layers and (layers.get("running") is None) == (so.main_pid in ours):
        yield f"sockets, running is {layers.get('running')}; the main PID is {so.main_pid}, dockerds {so.dockerds}"


def _socket_file(so: Facts, said: Said) -> Iterator[str]:
    """Whether the API answers at its UNIX socket is said."""
    listening = said.sockets.get("layers", {}).get("listening") or {}
    files = {
        "sockets": any(each["address"] in API_SOCKET for each in listening.get("bindings", [])),
        "status": any(row["layers"]["listening"] == "none" for row in said.status.get("sockets", [])
                      if row["address"] in API_SOCKET)}
    for verb, listens in files.items():
        if so.api not in (None, listens) and said.statuses[verb] != UNANSWERED:
            yield f"{verb} says of {API_SOCKET[0]} that it listens: {listens}; it answers: {so.api}"


def _contained(so: Facts, said: Said) -> Iterator[str]:
    """Nothing that is said to be blocked answers outside, or is a port of another network namespace."""
    for name, blocked in (("status", said.status.get("contained", [])), ("agent", said.agent.get("contained", []))):
        for address in blocked:
            for place in places(address):
                is_wildcard = place.host in ("::", "0.0.0.0", "")
                for (host, port), answer in so.outside.items():
                    if port == place.port and answer != "refused" and (is_wildcard or host == place.host):
                        yield f"{name} says that {address} is blocked, and {host} port {port} answers ({answer})"


def _finding(so: Facts, finding: dict[str, Any]) -> Iterator[str]:
    """What a finding says of a socket that listens."""
    message = finding["message"]
    if finding["code"] not in CODES or "in the network namespace" in message or "is declared, but" in message:
        return
    if finding["code"] == "DG108" and not so.is_up:
        # While dockerd does not answer, its last answer counts (docs/access-paths.md).
        return
    says_open = "it listens there now" in message or (
        finding["code"] in ("DG107", "DG108") and finding["layer"] in ("listening", "running"))
    for place in places(message) if says_open else ():
        sockets = [each for each in so.listeners if place.is_held(each)]
        if not sockets:
            yield f"nothing listens on port {place.port}"
            continue
        answers = so.answers(place.port)
        proven = "leads to the Docker API" in message or "the Docker API answers there" in message
        if proven and so.is_up and not answers & set(API):
            yield f"port {place.port} does not answer as the API ({sorted(answers)})"
        for words, answer in (("without TLS", "plain"), ("has no TLS", "plain"),
                              ("does not verify client certificates", "server")):
            if words in message and answers & set(API) and answer not in answers:
                yield f"port {place.port} answers as {sorted(answers)}"


def _agent(so: Facts, said: Said, *, agent_knows: bool) -> Iterator[str]:
    """What is said of the agent itself, and the times that it publishes."""
    agent, state = said.status.get("agent", {}), so.units["dockerd-guard.service"]["ActiveState"]
    if agent and (agent["pid"] or 0) != so.agent_pid:
        yield f"status says that the agent is PID {agent['pid']}; it is {so.agent_pid}"
    if agent and agent["alive"] and state != "active":
        yield f"status says that the agent is alive; it is {state}"
    if agent_knows and agent and not agent["alive"] and state == "active":
        yield f"status says that the agent is not alive; PID {so.agent_pid} is {state}"
    mode = valid_policy(so).get("mode", "")
    if agent_knows and agent.get("alive") and mode and said.agent["mode"] != mode:
        yield f"the agent says mode {said.agent['mode']}; the policy has had {mode} for long"
    for drift in said.agent.get("drifts", []):
        if datetime.fromisoformat(drift["since"]) > datetime.fromisoformat(said.agent["at"]):
            yield f"a drift since {drift['since']} is later than its status, {said.agent['at']}"
