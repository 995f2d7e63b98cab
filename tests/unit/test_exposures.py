"""What is open to the network against the policy, and its rules in the table of nftables."""

from __future__ import annotations

from datetime import date
from typing import Any, NamedTuple, cast

import pytest

from dockerd_guard.containment.nftables import ruleset
from dockerd_guard.model.address import Binding, Tls, Via, scope_of
from dockerd_guard.model.rejection import Rejection
from dockerd_guard.observe.observation import (
    LISTENING,
    LOADED,
    RUNNING,
    AccessKind,
    AccessPath,
    Layer,
    Listening,
    Loaded,
    Observation,
    Other,
    Process,
    Running,
)
from dockerd_guard.plan.exposures import Exposure, exposures, openings
from dockerd_guard.policy.reader import parse_policy
from tests.support import golden

TODAY = date(2026, 11, 26)


class Layers(NamedTuple):
    """As much of an Observation as containment looks at."""

    listening: Listening | None
    loaded: Loaded | None
    running: Running | None = None
    others: tuple[Other, ...] = ()
    access_paths: tuple[AccessPath, ...] = ()


class Case(NamedTuple):
    """What listens (with TLS), what PID 1 holds, what is declared; and what comes of it, rule by rule."""

    name: str
    listens: tuple[str, ...]
    declared: str
    found: tuple[str, ...]
    tls: Tls = Tls.NONE
    held: tuple[str, ...] = ()


MUTUAL = "{address: 'tcp://10.0.0.5:2376', tls: mutual}"

CASES = (
    Case("loopback and UNIX sockets need none",
         ("unix:///run/docker.sock", "tcp://127.0.0.1:2375", "tcp://[::1]:2375"), "fd://", ()),
    Case("everywhere, both families", ("tcp://[::]:2375",), "fd://", ("DG101: tcp dport 2375",)),
    Case("everywhere, one family", ("tcp://0.0.0.0:2375",), "fd://", ("DG101: meta nfproto ipv4 tcp dport 2375",)),
    Case("both wildcards, each by its own", ("tcp://0.0.0.0:2375", "tcp://[::]:2375"), "fd://",
         ("DG101: meta nfproto ipv4 tcp dport 2375", "DG101: tcp dport 2375")),
    Case("one address", ("tcp://10.0.0.5:2375",), "fd://", ("DG101: ip daddr 10.0.0.5 tcp dport 2375",)),
    Case("one address of IPv6", ("tcp://[fd77::2]:2375",), "fd://", ("DG101: ip6 daddr fd77::2 tcp dport 2375",)),
    Case("declared", ("tcp://10.0.0.5:2376",), MUTUAL, (), Tls.MUTUAL),
    Case("declared, but weaker than that", ("tcp://10.0.0.5:2376",), MUTUAL,
         ("DG105: ip daddr 10.0.0.5 tcp dport 2376",), Tls.SERVER),
    Case("the declared address of a port that is open everywhere is spared", ("tcp://[::]:2376",), MUTUAL,
         ("accept: ip daddr 10.0.0.5 tcp dport 2376", "DG101: tcp dport 2376"), Tls.MUTUAL),
    Case("unless it has not got its TLS", ("tcp://[::]:2376",), MUTUAL, ("DG101: tcp dport 2376",), Tls.NONE),
    Case("held by systemd, where a connection would start dockerd", (), "fd://",
         ("DG101: ip daddr 10.0.0.5 tcp dport 2375",), held=("unix:///run/docker.sock", "tcp://10.0.0.5:2375")),
)


def layer(name: str, addresses: tuple[str, ...], tls: Tls = Tls.NONE) -> Layer:
    bindings = tuple(Binding(address, scope_of(address), tls, Via.FLAG) for address in addresses)
    return Layer(name, True, None, None, (), addresses, bindings)


def seen(listens: tuple[str, ...], tls: Tls = Tls.NONE, held: tuple[str, ...] = (),
         loaded: tuple[str, ...] = ()) -> Observation:
    started_with = Running(layer(RUNNING, ("fd://", *listens)), *[None] * 2)  # type: ignore[arg-type]
    in_memory = Loaded(layer(LOADED, loaded), *[None] * 9)  # type: ignore[arg-type]
    return cast(Observation, Layers(Listening(layer(LISTENING, listens, tls), held), in_memory, started_with))


def rules(found: tuple[Exposure, ...]) -> list[str]:
    """The rules between the head of the table and its end, each with what it does."""
    by_address = {exposure.address: exposure.rule for exposure in found}
    lines = [line.strip() for line in ruleset(exposure.rejection for exposure in found).splitlines()[6:-2]]
    return [f"accept: {line.removesuffix(' accept')}" if line.endswith(" accept") else
            f"{by_address[line.split(chr(34))[1]]}: {line.partition(' reject with tcp reset')[0]}" for line in lines]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exposures_and_their_rules(case: Case) -> None:
    policy = parse_policy(f"version: 1\nsockets: [{case.declared}]\n".encode(), "/policy.yaml")
    assert rules(exposures(seen(case.listens, case.tls, case.held), policy, TODAY)) == list(case.found)


def test_the_table_replaces_the_one_before_and_lets_loopback_pass() -> None:
    golden.check(ruleset([Rejection("tcp://[::]:2375")]), "report/ruleset.nft")


def test_published_ports_are_rejected_before_their_destination_changes() -> None:
    golden.check(ruleset([Rejection("tcp://[::]:2375"), Rejection("tcp://0.0.0.0:9000", is_published=True),
                          Rejection("tcp://[fd77::2]:9000", is_published=True)]), "report/ruleset-published.nft")


RELAY = AccessPath(AccessKind.FORWARDER, "tcp://0.0.0.0:5000", unit="relay.service", program="socat", serves_api=True)
ENGINE = Process(7, (), {}, 0, "engine.service")
TWO = Other(ENGINE, layer(LISTENING, ("tcp://[::]:4243", "tcp://127.0.0.1:4244", "unix:///run/2.sock")).bindings)


@pytest.mark.parametrize(("fields", "waived", "found"), [
    ({"access_paths": (RELAY,)}, "", ["DG107 tcp://0.0.0.0:5000"]),
    ({"access_paths": (RELAY._replace(serves_api=False),)}, "", []),
    ({"access_paths": (RELAY._replace(address="tcp://127.0.0.1:5000"),)}, "", []),
    ({"access_paths": (RELAY._replace(address="", kind=AccessKind.CONTAINER),)}, "", []),
    ({"access_paths": (RELAY._replace(kind=AccessKind.CONTAINER),)}, "", ["DG108 tcp://0.0.0.0:5000"]),
    ({"access_paths": (RELAY._replace(kind=AccessKind.CONTAINERD),)}, "", ["DG110 tcp://0.0.0.0:5000"]),
    ({"access_paths": (RELAY,)}, "{rule: DG107, unit: relay.service, reason: x}", []),
    ({"access_paths": (RELAY,)}, "{rule: DG107, unit: relay.service, until: 2020-01-01, reason: x}",
     ["DG107 tcp://0.0.0.0:5000"]),
    ({"others": (TWO,)}, "", ["DG107 tcp://[::]:4243"]),
    ({"others": (TWO._replace(bindings=tuple(each._replace(namespace="net:[1]") for each in TWO.bindings)),)}, "", []),
    ({"others": (TWO,)}, "{rule: DG107, unit: engine.service, reason: x}", []),
])
def test_other_access_paths_are_exposures(fields: dict[str, Any], waived: str, found: list[str]) -> None:
    policy = parse_policy(f"version: 1\nsockets: ['fd://']\nwaive: [{waived}]\n".encode(), "/policy.yaml")
    observed = cast(Observation, Layers(Listening(layer(LISTENING, ())), None, **fields))
    assert [f"{one.rule} {one.address}" for one in exposures(observed, policy, TODAY)] == found


HELD_BY_SYSTEMD = Listening(layer(LISTENING, ()), ("unix:///run/docker.sock",))


@pytest.mark.parametrize(("path", "listening", "others", "is_idle"), [
    (RELAY, Listening(layer(LISTENING, ())), (), True),
    (RELAY, HELD_BY_SYSTEMD, (), False),
    (RELAY, Listening(layer(LISTENING, ())), (TWO,), False),
    (RELAY._replace(kind=AccessKind.CONTAINER), Listening(layer(LISTENING, ())), (), True),
    (RELAY._replace(is_apart=True), Listening(layer(LISTENING, ())), (), False),
    (RELAY._replace(kind=AccessKind.CONTAINERD), Listening(layer(LISTENING, ())), (), False),
    (RELAY._replace(kind=AccessKind.API_PORT), Listening(layer(LISTENING, ())), (), False),
])
def test_what_leads_to_a_dockerd_that_is_down_is_idle(
    path: AccessPath, listening: Listening, others: tuple[Other, ...], is_idle: bool
) -> None:
    """It stays blocked, and is not counted: nobody gets an answer there (I10)."""
    policy = parse_policy(b"version: 1\nsockets: ['fd://']\n", "/policy.yaml")
    observed = cast(Observation, Layers(listening, None, others=others, access_paths=(path,)))
    assert {one.address: one.is_idle for one in exposures(observed, policy, TODAY)}["tcp://0.0.0.0:5000"] is is_idle


def test_a_port_of_the_host_counts_beside_the_same_port_of_another_network_namespace() -> None:
    policy = parse_policy(b"version: 1\nsockets: ['fd://']\n", "/policy.yaml")
    own = layer(LISTENING, ("tcp://0.0.0.0:5000",))
    own = own._replace(bindings=tuple(each._replace(namespace="net:[1]") for each in own.bindings))
    observed = cast(Observation, Layers(Listening(own), None, access_paths=(RELAY,)))
    assert [(one.rule, one.namespace) for one in exposures(observed, policy, TODAY)] == [
        ("DG101", "net:[1]"), ("DG107", "")]


@pytest.mark.parametrize(("loaded", "stays"), [
    (("tcp://0.0.0.0:2375",), ["tcp://[::]:2375"]),
    (("unix:///run/docker.sock",), []),
], ids=["would be open again", "is corrected"])
def test_a_restart_of_dockerd_releases_only_what_it_will_not_open_again(
        loaded: tuple[str, ...], stays: list[str]) -> None:
    policy = parse_policy(b"version: 1\nsockets: ['fd://']\n", "/policy.yaml")
    found = exposures(seen((), loaded=loaded), policy, TODAY, ("tcp://[::]:2375",))
    assert [exposure.address for exposure in found] == stays


def test_a_socket_that_systemd_opened_is_known_for_that_after_a_reload_too() -> None:
    policy = parse_policy(b"version: 1\nsockets: ['fd://']\n", "/policy.yaml")
    open_now = Listening(layer(LISTENING, ("tcp://[::]:2375", "tcp://0.0.0.0:4243")))
    started_with = Running(layer(RUNNING, ("fd://", "tcp://0.0.0.0:2375")), *[None] * 2)  # type: ignore[arg-type]
    found = exposures(cast(Observation, Layers(open_now, None, started_with)), policy, TODAY)
    assert {exposure.address: exposure.via for exposure in found} == {
        "tcp://[::]:2375": Via.FLAG, "tcp://0.0.0.0:4243": Via.SOCKET_UNIT}


@pytest.mark.parametrize(("name", "address", "tls", "declared", "found"), [
    ("undeclared", "tcp://[::]:2375", Tls.NONE, "fd://", ["DG101: tcp dport 2375"]),
    ("undeclared, with TLS", "tcp://10.0.0.5:2376", Tls.MUTUAL, "fd://", ["DG101: ip daddr 10.0.0.5 tcp dport 2376"]),
    ("loopback", "tcp://127.0.0.1:2375", Tls.NONE, "fd://", []),
    ("a host name, whose address is not known", "tcp://build1:2375", Tls.NONE, "fd://", []),
    ("declared", "tcp://10.0.0.5:2376", Tls.MUTUAL, MUTUAL, []),
    ("declared, but weaker than that", "tcp://10.0.0.5:2376", Tls.SERVER, MUTUAL,
     ["DG105: ip daddr 10.0.0.5 tcp dport 2376"]),
    ("declared, with TLS that is not known yet", "tcp://10.0.0.5:2376", Tls.UNKNOWN, MUTUAL, []),
    ("the declared address of its port is spared", "tcp://[::]:2376", Tls.MUTUAL, MUTUAL,
     ["accept: ip daddr 10.0.0.5 tcp dport 2376", "DG101: tcp dport 2376"]),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_dockerd_that_starts_is_going_to_open(
    name: str, address: str, tls: Tls, declared: str, found: list[str]
) -> None:
    """It is blocked before anybody can connect."""
    policy = parse_policy(f"version: 1\nsockets: [{declared}]\n".encode(), "/policy.yaml")
    opening = layer(RUNNING, (address,), tls).bindings
    started_with = Running(layer(RUNNING, (address,)), *[None] * 2)  # type: ignore[arg-type]
    started_with = started_with._replace(opening=opening)
    observed = cast(Observation, Layers(Listening(layer(LISTENING, ())), None, started_with))
    assert rules(openings(observed, policy, TODAY, is_starting=True)) == found
    assert openings(observed, policy, TODAY, is_starting=False) == ()
    assert exposures(observed, policy, TODAY) == (), "nobody can connect to it yet"


@pytest.mark.parametrize(("opening", "waived", "found"), [
    (("tcp://[::]:4243",), "", ["DG107 tcp://[::]:4243"]),
    (("tcp://10.0.0.5:4243", "tcp://127.0.0.1:4244"), "", ["DG107 tcp://10.0.0.5:4243"]),
    (("tcp://build1:4243",), "", []),
    (("tcp://[::]:4243",), "{rule: DG107, unit: engine.service, reason: x}", []),
], ids=["a wildcard", "not loopback", "not a host name", "not one that is waived"])
def test_what_another_dockerd_that_starts_is_going_to_open(
    opening: tuple[str, ...], waived: str, found: list[str]
) -> None:
    policy = parse_policy(f"version: 1\nsockets: ['fd://']\nwaive: [{waived}]\n".encode(), "/policy.yaml")
    starts = Other(ENGINE, (), is_starting=True, opening=layer(RUNNING, opening).bindings)
    observed = cast(Observation, Layers(Listening(layer(LISTENING, ())), None, others=(starts,)))
    assert [f"{one.rule} {one.address}" for one in openings(observed, policy, TODAY, is_starting=False)] == found
    assert exposures(observed, policy, TODAY) == (), "nobody can connect to it yet"
