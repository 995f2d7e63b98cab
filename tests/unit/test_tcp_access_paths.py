"""Programs that lead to a TCP socket of a dockerd on this host, for which no client certificate is needed."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockerd_guard.model.address import Binding, Tls, Via, scope_of
from dockerd_guard.observe import tcp_peers
from dockerd_guard.observe.access_paths import AccessObserver
from dockerd_guard.observe.api_names import names_of
from dockerd_guard.observe.listeners import ListenerTable, Owned
from dockerd_guard.observe.observation import RUNNING, AccessKind, Layer, Other, Process
from tests.support.hosts import Host

ANY, LOOPBACK, OWN = "tcp://0.0.0.0:2375", "tcp://127.0.0.1:2375", "tcp://10.1.2.3:4243"


@pytest.mark.parametrize(("address", "text", "found"), [
    (LOOPBACK, "TCP:127.0.0.1:2375,nodelay", "127.0.0.1:2375"),
    (LOOPBACK, "proxy_pass http://localhost:2375/;", "localhost:2375"),
    (LOOPBACK, "ncat\x00localhost\x002375", "localhost:2375"),
    (LOOPBACK, "server docker 127.0.0.1:2375 check", "127.0.0.1:2375"),
    ("tcp://[::1]:2375", "TCP6:[::1]:2375", "[::1]:2375"),
    (ANY, "127.1:2375", "127.1:2375"),
    (ANY, "0.0.0.0:2375", "0.0.0.0:2375"),
    (OWN, "TCP4:10.1.2.3:4243", "10.1.2.3:4243"),
    (OWN, "10.1.2.3:42430", ""),
    (OWN, "110.1.2.3:4243", ""),
    (OWN, "127.0.0.1:4243", ""),
    # Another host, or another port.
    (LOOPBACK, "tcp://build.example:2375", ""),
    (LOOPBACK, "my.localhost:2375", ""),
    (LOOPBACK, "127.0.0.1:23750", ""),
    (LOOPBACK, "127.0.0.1:12375", ""),
    (LOOPBACK, "127.0.0.1:8080 2375", ""),
    ("unix:///run/docker.sock", "127.0.0.1:2375", ""),
])
def test_names_of_the_tcp_sockets_of_the_api(address: str, text: str, found: str) -> None:
    assert names_of((address,)).find(text.encode()) == found


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def connection(stack: contextlib.ExitStack, listen: str, connect: str) -> tuple[socket.socket, socket.socket, int]:
    """The client's and the server's socket of a new connection, and the server's port."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    server = stack.enter_context(socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::"))
    port = server.getsockname()[1]
    client = stack.enter_context(socket.create_connection((connect, port)))
    return client, stack.enter_context(server.accept()[0]), port


def inode(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


@pytest.mark.parametrize(("listen", "connect"), [("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")])
def test_clients_of_accepted_connections(
        stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch, listen: str, connect: str) -> None:
    monkeypatch.setattr(tcp_peers, "INIT", os.getpid())
    client, accepted, port = connection(stack, listen, connect)
    # Another server, to which the first one is a client, as dockerd is to a registry on this host.
    outgoing, registry, other = connection(stack, listen, connect)
    held = {inode(accepted), inode(outgoing)}
    assert tcp_peers.clients(held, {port}) == {inode(client)}
    assert tcp_peers.clients(held, {other}) == frozenset()
    assert tcp_peers.clients(held, ()) == frozenset()
    assert tcp_peers.clients({inode(registry)}, {port}) == frozenset()


@pytest.mark.parametrize(("address", "tls", "namespace", "is_found"), [
    (LOOPBACK, Tls.NONE, "", True),
    (LOOPBACK, Tls.SERVER, "", True),
    (LOOPBACK, Tls.UNKNOWN, "", True),
    (ANY, Tls.NONE, "", True),
    (LOOPBACK, Tls.MUTUAL, "", False),
    # Its loopback interface is another one.
    (LOOPBACK, Tls.NONE, "/run/netns/blue", False),
])
@pytest.mark.parametrize("is_other", [False, True])
def test_relay_to_a_tcp_socket(  # noqa: PLR0913, PLR0917 -- a table
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, tls: Tls, namespace: str, is_found: bool,
        is_other: bool) -> None:
    """Of the dockerd of docker.service, and of another one."""
    relay = Process(2**22 + 1, ("socat", "TCP-LISTEN:5000", "TCP:127.0.0.1:2375"), {}, 0, "", "/usr/bin/socat", 1)
    monkeypatch.setattr(ListenerTable, "look", lambda _: (Owned(relay, {7: "tcp://[::]:5000"}),))
    binding = Binding(address, scope_of(address), tls, Via.FLAG, None, namespace=namespace)
    seen = Host(tmp_path).see()
    if is_other:
        seen = seen._replace(others=(Other(relay._replace(pid=2**22 + 2), (binding,)),))
    else:
        layer = Layer(RUNNING, True, None, None, (), (address,), (binding,))
        seen = seen._replace(configured=seen.configured._replace(layer=layer))
    found = AccessObserver().look(seen, lambda _: None, {})
    expected = [(AccessKind.FORWARDER, "command line names 127.0.0.1:2375", True)] if is_found else []
    assert [(path.kind, path.evidence.removeprefix("its "), path.serves_api) for path in found] == expected
