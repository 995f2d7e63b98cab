"""`sockets` on real published configurations (../shared/corpus). Cases marked `ambiguous` are left out."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard import cli
from dockerd_guard.dockerd.hosts import InvalidHost, parse_host
from dockerd_guard.dockerd.version import NEWEST_DOCKERD
from dockerd_guard.model.address import Scope, Via, canonical
from dockerd_guard.observe.configured import dockerd_syntax, observe_configured
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.sockets import parse_address
from tests.support import shared

CASES = [(root, json.loads((root / "case.json").read_text())) for root in shared.corpus()]
SCORED = [(root, case) for root, case in CASES if "ambiguous" not in case]

NARROWEST_FIRST = (Scope.LOOPBACK, Scope.ADDRESS, Scope.WILDCARD)
SCOPE_NAMES = {Scope.LOOPBACK: "loopback", Scope.ADDRESS: "specific", Scope.WILDCARD: "all"}
TLS = {"none": "none", "tls": "server", "tlsverify": "mutual"}


def test_corpus_is_complete() -> None:
    assert len(CASES) > 50


@pytest.mark.parametrize(("root", "case"), SCORED, ids=[root.name for root, _ in SCORED])
def test_case(root: Path, case: dict[str, Any]) -> None:
    expected = case["expected"]
    layer = sockets(root)
    tcp = [binding for binding in layer["bindings"] if binding["address"].startswith("tcp://")]
    widest = max((binding["scope"] for binding in tcp), key=NARROWEST_FIRST.index, default=None)
    actual = {
        "starts": layer["starts"],
        "hosts": sorted(map(normalised, layer["hosts"])),
        "tcp_scope": SCOPE_NAMES[Scope(widest)] if widest else "none",
        "unauthenticated_tcp": any(binding["tls"] != "mutual" for binding in tcp),
        "socket_listen": listens(root),
    }
    wanted = {
        "starts": expected["starts"],
        "hosts": sorted(map(normalised, expected["bindings"])),
        "tcp_scope": expected["tcp_scope"],
        "unauthenticated_tcp": expected["unauthenticated_tcp"],
        "socket_listen": sorted(canonical(dockerd_syntax(parse_address(text) or text))
                                for text in expected["socket_listen"]),
    }
    if tcp:
        actual["tls"] = {binding["tls"] for binding in tcp}
        wanted["tls"] = {TLS[expected["tls"]]}
    if "refused_by" in expected:
        actual["refused_by"], wanted["refused_by"] = layer["refused_by"], expected["refused_by"]
    if expected.get("default_binding"):
        actual["via"] = {binding["via"] for binding in layer["bindings"]}
        wanted["via"] = {Via.DEFAULT}
    assert actual == wanted, expected["notes"]


def sockets(root: Path) -> dict[str, Any]:
    """Return the configured layer, as `sockets --format json` prints it."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert cli.main(["sockets", "--root", str(root), "--format", "json"]) == 0
    layer: dict[str, Any] = json.loads(out.getvalue())["layers"]["configured"]
    return layer


def listens(root: Path) -> list[str]:
    """Return the addresses that the socket units pass to the service, whether dockerd uses fd:// or not."""
    with Rootfs(str(root)) as rootfs:
        sockets = observe_configured(rootfs).sockets
        addresses = [listen.address for socket in sockets for listen in socket.listen]
        return sorted(canonical(dockerd_syntax(address)) for address in addresses)


def normalised(host: str) -> str:
    """Return a host as dockerd normalises it; unchanged if dockerd refuses it."""
    try:
        return parse_host(host, NEWEST_DOCKERD)
    except InvalidHost:
        return host
