"""Ask a machine's dockerd: what it does with arguments and daemon.json, and with whole trees of files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tests.differential.bench import Bench
from tests.differential.compare import last_words, received, their_key
from tests.differential.layout import Layout
from tests.support import corpus
from tests.support.vectors import Document, Vector, data

SERVICE = "/usr/lib/systemd/system/docker.service"
DAEMON_JSON = "/etc/docker/daemon.json"
CERTIFICATES = {f"/etc/docker/{name}.pem": f"@{name}".encode() for name in ("ca", "cert", "key")}

BATCH = 8
"""So many dockerds start all the way at the same time: each has a containerd beside it."""

MAX_REASON = 240


def answers(bench: Bench, documents: Iterable[Document]) -> dict[str, list[Any]]:
    """Return the answers of this machine's dockerd to all vectors, by topic."""
    vectors = [(document.topic, vector) for document in documents for vector in document.vectors]
    real = judged(bench, [layout_of(vector, full=topic == "tls") for topic, vector in vectors])
    found: dict[str, list[Any]] = {}
    for (topic, vector), answer in zip(vectors, real, strict=True):
        argv = answer["systemd"]["records"][0]["argv"]
        assert argv == ["/usr/bin/dockerd", *vector["argv"]], (vector["name"], argv)
        found.setdefault(topic, []).append(answer_of(answer["daemon"], with_tls=topic == "tls"))
    return found


def judged(bench: Bench, layouts: list[Layout]) -> list[dict[str, Any]]:
    """Return what the machine's judge reports of each layout, those that start all the way a few at a time."""
    numbers = sorted(range(len(layouts)), key=lambda number: layouts[number].full)
    quick = [number for number in numbers if not layouts[number].full]
    full = [number for number in numbers if layouts[number].full]
    real = {}
    for batch in (quick, *(full[first:first + BATCH] for first in range(0, len(full), BATCH))):
        for verdict in bench.judge([(number, layouts[number]) for number in batch]):
            assert "error" not in verdict.real, verdict.real
            real[verdict.number] = verdict.real
    return [real[number] for number in range(len(layouts))]


def layout_of(vector: Vector, *, full: bool) -> Layout:
    """Return a docker.service with the vector's arguments and variables, and its daemon.json."""
    words = " ".join(map(quoted, vector["argv"]))
    variables = "".join(f"Environment={quoted(f'{name}={value}')}\n" for name, value in vector.get("env", {}).items())
    files = {SERVICE: f"[Service]\nType=notify\nExecStart=:/usr/bin/dockerd {words}\n{variables}".encode()}
    if "daemon_json" in vector:
        files[DAEMON_JSON] = data(vector["daemon_json"])
    return Layout({**files, **CERTIFICATES}, {}, full=full)


def quoted(word: str) -> str:
    """Return a word as a unit file has it (systemd.service(5), "Command lines")."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{escaped}"'


def answer_of(daemon: Mapping[str, Any], *, with_tls: bool) -> dict[str, Any]:
    """Return the hosts that dockerd listens on, or the reason why it refuses to start."""
    if daemon["outcome"] == "ended":
        return {"refused": reason(daemon["log"])}
    assert daemon["outcome"] in ("listening", "serving"), daemon
    answer: dict[str, Any] = {"hosts": [f"{proto}://{address}" for proto, address in daemon["created"]]}
    if with_tls:
        answer["tls"] = " ".join(sorted(set(daemon["tls"].values()))) or "none"
    return answer


def reason(log: str) -> str:
    """Return the line with which dockerd ends, without what differs from start to start."""
    words = [line for line in last_words(log).splitlines() if line.strip() and not line.startswith("See '")]
    line = next((line for line in log.splitlines() if line.startswith("panic: ")), words[-1] if words else "")
    logged = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
    return (logged[1] if logged and line.startswith("time=") else line.removeprefix("Status: "))[:MAX_REASON]


# The corpus.

def corpus_answers(bench: Bench) -> list[dict[str, Any]]:
    """Return what the machine's systemd and dockerd do with each tree, in the order of corpus.roots()."""
    real = judged(bench, [corpus.layout(root) for root in corpus.roots()])
    return [_outcome(each) for each in real]


def _outcome(real: Mapping[str, Any]) -> dict[str, Any]:
    systemd = real["systemd"]
    if not systemd["records"]:
        reasons = [line for line in systemd["stderr"].splitlines() if "systemctl" not in line]
        return {"starts": False, "refused_by": "systemd", "load_state": systemd["state"], "reason": reasons[0]}
    record = systemd["records"][0]
    passed = [each for line in record["sockets"] if (each := received(line)) is not None]
    # The order of several units is that of a hash table with a random key (service_collect_fds()).
    answer = {"argv": record["argv"], "passed": sorted(passed) if len(systemd["sockets"]) > 1 else passed}
    daemon = real["daemon"]
    if daemon["outcome"] == "ended":
        return {"starts": False, "refused_by": "dockerd", "reason": reason(daemon["log"]), **answer}
    assert daemon["outcome"] in ("listening", "serving"), daemon
    listening = {key: _tls(daemon, each) for each in daemon["listening"] if (key := their_key(each, "")) is not None}
    return {"starts": True, "hosts": [f"{proto}://{address}" for proto, address in daemon["created"]],
            "listening": dict(sorted(listening.items())), **answer}


def _tls(daemon: Mapping[str, Any], listener: list[Any]) -> str:
    return str(daemon.get("tls", {}).get(str(listener[1:]), "none"))
