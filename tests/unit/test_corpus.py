"""Real published configurations: `sockets` says what each of them does.

They lie beside the checkout (../shared/corpus) and are not copied here: where they are absent the test
says so. Cases marked `ambiguous` are not scored.
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

NEAREST_FIRST = (Scope.LOOPBACK, Scope.ADDRESS, Scope.WILDCARD)
WORDS = {Scope.LOOPBACK: "loopback", Scope.ADDRESS: "specific", Scope.WILDCARD: "all"}
TLS = {"none": "none", "tls": "server", "tlsverify": "mutual"}


def test_the_corpus_is_there() -> None:
    if not CASES:
        pytest.skip(f"no corpus of configurations beside this checkout ({CORPUS})")
    assert len(CASES) > 50


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.parent.name)
def test_case(case: Path) -> None:
    told = json.loads(case.read_text())
    if "ambiguous" in told:
        pytest.skip(f"ambiguous: {told['ambiguous']}")
    expected = told["expected"]
    layer = sockets(case.parent)
    tcp = [binding for binding in layer["bindings"] if binding["address"].startswith("tcp://")]
    widest = max((binding["scope"] for binding in tcp), key=NEAREST_FIRST.index, default=None)
    said = {
        "starts": layer["starts"],
        "hosts": sorted(map(meant, layer["hosts"])),
        "tcp_scope": WORDS[Scope(widest)] if widest else "none",
        "unauthenticated_tcp": any(binding["tls"] != "mutual" for binding in tcp),
        "socket_listen": listens(case.parent),
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
    with Rootfs(str(root)) as rootfs:
        sockets = observe_configured(rootfs).sockets
        addresses = [listen.address for socket in sockets for listen in socket.listen]
        return sorted(canonical(dockerd_syntax(address)) for address in addresses)


def meant(host: str) -> str:
    """One spelling for a host as written and as dockerd normalises it."""
    try:
        return parse_host(host, NEWEST)
    except InvalidHost:
        return host
