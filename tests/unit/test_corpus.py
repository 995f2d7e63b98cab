"""`sockets` on real published configurations.

The configurations are in ../shared/corpus, beside the checkout. Where it is absent the tests are skipped. Cases
marked `ambiguous` are skipped as well.
"""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dockerd_guard import cli
from dockerd_guard.dockerd.hosts import InvalidHost, parse_host
from dockerd_guard.dockerd.version import NEWEST
from dockerd_guard.model.address import Scope, Via, canonical
from dockerd_guard.observe.configured import dockerd_syntax, observe_configured
from dockerd_guard.rootfs import Rootfs
from dockerd_guard.systemd.sockets import parse_address

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
CASES = sorted(CORPUS.glob("*/case.json"))

NARROWEST_FIRST = (Scope.LOOPBACK, Scope.ADDRESS, Scope.WILDCARD)
SCOPE_NAMES = {Scope.LOOPBACK: "loopback", Scope.ADDRESS: "specific", Scope.WILDCARD: "all"}
TLS = {"none": "none", "tls": "server", "tlsverify": "mutual"}


def test_corpus_is_complete() -> None:
    if not CASES:
        pytest.skip(f"no corpus of configurations beside this checkout ({CORPUS})")
    assert len(CASES) > 50


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.parent.name)
def test_case(case: Path) -> None:
    facts = json.loads(case.read_text())
    if "ambiguous" in facts:
        pytest.skip(f"ambiguous: {facts['ambiguous']}")
    expected = facts["expected"]
    layer = sockets(case.parent)
    tcp = [binding for binding in layer["bindings"] if binding["address"].startswith("tcp://")]
    widest = max((binding["scope"] for binding in tcp), key=NARROWEST_FIRST.index, default=None)
    actual = {
        "starts": layer["starts"],
        "hosts": sorted(map(normalised, layer["hosts"])),
        "tcp_scope": SCOPE_NAMES[Scope(widest)] if widest else "none",
        "unauthenticated_tcp": any(binding["tls"] != "mutual" for binding in tcp),
        "socket_listen": listens(case.parent),
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
        return parse_host(host, NEWEST)
    except InvalidHost:
        return host
