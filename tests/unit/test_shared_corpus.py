"""Real published configurations (../shared/corpus): what `sockets` reports of each. `ambiguous` cases are left out."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard import cli
from dockerd_guard.bindings import Scope, Via, canonical
from dockerd_guard.dockerd.hosts import InvalidHost, parse_host
from dockerd_guard.dockerd.version import NEWEST
from dockerd_guard.observe.configured import dockerd_syntax, observe_configured
from dockerd_guard.systemd.sockets import parse_address
from dockerd_guard.tree import Tree
from tests.support import shared

CASES = [(root, json.loads((root / "case.json").read_text())) for root in shared.corpus()]
SCORED = [(root, case) for root, case in CASES if "ambiguous" not in case]

NEAREST_FIRST = (Scope.LOOPBACK, Scope.ADDRESS, Scope.WILDCARD)
WORDS = {Scope.LOOPBACK: "loopback", Scope.ADDRESS: "specific", Scope.WILDCARD: "all"}
TLS = {"none": "none", "tls": "server", "tlsverify": "mutual"}


def test_the_corpus_is_there() -> None:
    assert len(CASES) > 50


@pytest.mark.parametrize(("root", "case"), SCORED, ids=[root.name for root, _ in SCORED])
def test_case(root: Path, case: dict[str, Any]) -> None:
    expected = case["expected"]
    layer = sockets(root)
    tcp = [binding for binding in layer["bindings"] if binding["address"].startswith("tcp://")]
    widest = max((binding["scope"] for binding in tcp), key=NEAREST_FIRST.index, default=None)
    said = {
        "starts": layer["starts"],
        "hosts": sorted(map(meant, layer["hosts"])),
        "tcp_scope": WORDS[Scope(widest)] if widest else "none",
        "unauthenticated_tcp": any(binding["tls"] != "mutual" for binding in tcp),
        "socket_listen": listens(root),
    }
    right = {
        "starts": expected["starts"],
        "hosts": sorted(map(meant, expected["bindings"])),
        "tcp_scope": expected["tcp_scope"],
        "unauthenticated_tcp": expected["unauthenticated_tcp"],
        "socket_listen": sorted(canonical(dockerd_syntax(parse_address(text) or text))
                                for text in expected["socket_listen"]),
    }
    if tcp:
        said["tls"] = {binding["tls"] for binding in tcp}
        right["tls"] = {TLS[expected["tls"]]}
    if "refused_by" in expected:
        said["refused_by"], right["refused_by"] = layer["refused_by"], expected["refused_by"]
    if expected.get("default_binding"):
        said["via"] = {binding["via"] for binding in layer["bindings"]}
        right["via"] = {Via.DEFAULT}
    assert said == right, expected["notes"]


def sockets(root: Path) -> dict[str, Any]:
    """The configured layer as the command line tells it."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert cli.main(["sockets", "--root", str(root), "--format", "json"]) == 0
    layer: dict[str, Any] = json.loads(out.getvalue())["layers"]["configured"]
    return layer


def listens(root: Path) -> list[str]:
    """What systemd would listen on for the service, whether dockerd asks for it or not."""
    with Tree(str(root)) as tree:
        sockets = observe_configured(tree).sockets
        addresses = [listen.address for socket in sockets for listen in socket.listen]
        return sorted(canonical(dockerd_syntax(address)) for address in addresses)


def meant(host: str) -> str:
    """One spelling for a host as written and as dockerd normalises it."""
    try:
        return parse_host(host, NEWEST)
    except InvalidHost:
        return host
