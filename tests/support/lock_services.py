"""Lock services on a loopback port: one that answers what a test says, and etcd, as a stand-in and as the real one."""

from __future__ import annotations

import base64
import bisect
import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

ETCD = os.environ.get("DOCKERD_GUARD_ETCD") or shutil.which("etcd")
"""The real etcd, where there is one; tests/system/test_fleet.py runs the same tests in machines that have it."""


def http_answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """An answer of HTTP/1.1 with its length."""
    return "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", "")).encode() + body


@contextlib.contextmanager
def answering(
    *answers: bytes | Callable[[socket.socket], None], reads: bool = True
) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads a request and answers it with the next of these bytes, the last one again and again; or lets
    a function do it. Without `reads` it answers at once. Yields its HOST:PORT, and what it has received."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(10)
                    answer = answers[min(len(received), len(answers) - 1)]
                    received.append(read_request(connection) if reads else b"")
                    if callable(answer):
                        answer(connection)
                    else:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", received
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def read_request(connection: socket.socket) -> bytes:
    """A request, to the end of its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-len")),
                  0)
    while len(body) < length and (more := connection.recv(65536)):
        body += more
    return head + b"\r\n\r\n" + body


class EtcdService(Protocol):
    """One etcd: its URL, and ways to hurt it."""

    url: str

    def expire(self, lease: int) -> None:
        """Let a lease end."""


class RealEtcd:
    """A process of etcd with an empty data directory."""

    def __init__(self, directory: Path, program: str | None = ETCD) -> None:
        assert program is not None
        client, peer = _free_port(), _free_port()
        self.url = f"http://127.0.0.1:{client}"
        other = f"http://127.0.0.1:{peer}"
        with (directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [program, "--data-dir", str(directory / "data"), "--listen-client-urls", self.url,
                 "--advertise-client-urls", self.url, "--listen-peer-urls", other,
                 "--initial-advertise-peer-urls", other, "--initial-cluster", f"default={other}"],
                stdout=log, stderr=log)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", client), 1):
                time.sleep(0.5)
                return
            time.sleep(0.1)
        raise AssertionError((directory / "log").read_text())

    def expire(self, lease: int) -> None:
        import urllib.request

        urllib.request.urlopen(f"{self.url}/v3/lease/revoke", json.dumps({"ID": str(lease)}).encode(), 5).close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class FakeEtcd(ThreadingHTTPServer):
    """What dockerd-guard uses of etcd's JSON gateway, as etcd 3.4 answers it: numbers are strings, zeros are left
    out."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Gateway)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.Lock()
        self.revision = 1
        self.pairs: dict[str, dict[str, Any]] = {}
        self.order: list[bytes] = []
        """The keys as etcd orders them; those of `pairs` are in base64."""
        self.leases: dict[int, int] = {}
        self.granted = 0
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()

    def expire(self, lease: int) -> None:
        self.leases.pop(lease, None)
        self.pairs = {key: pair for key, pair in self.pairs.items() if pair.get("lease") != str(lease)}
        self.order = sorted(map(base64.b64decode, self.pairs))

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def do(self, path: str, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        header = {"header": {"revision": str(self.revision)}}
        if path.startswith("/v3/lease/"):
            return self.lease(path, data, header)
        if path == "/v3/kv/range":
            return 200, header | self.range(data)
        if path in ("/v3/kv/put", "/v3/kv/deleterange"):
            self.change(data, is_put=path.endswith("put"))
            return 200, {"header": {"revision": str(self.revision)}}
        if path == "/v3/kv/txn":
            holds = all(self.pairs.get(each["key"], {"create_revision": "0"})["create_revision"]
                        == each["create_revision"] for each in data.get("compare", ()))
            answers = [self.step(step) for step in data.get("success" if holds else "failure", ())]
            return 200, {"header": {"revision": str(self.revision)}, "responses": answers} | (
                {"succeeded": True} if holds else {})
        return 404, {}

    def lease(self, path: str, data: dict[str, Any], header: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/v3/lease/grant":
            self.granted += 1
            lease = 7587000000000000000 + self.granted
            self.leases[lease] = int(data["TTL"])
            return 200, header | {"ID": str(lease), "TTL": data["TTL"]}
        ttl = self.leases.get(int(data["ID"]))
        if path == "/v3/lease/keepalive":
            return 200, {"result": header | {"ID": data["ID"]} | ({"TTL": str(ttl)} if ttl else {})}
        self.expire(int(data["ID"]))
        error = "etcdserver: requested lease not found"
        return (200, header) if ttl else (404, {"error": error, "message": error, "code": 5})

    def step(self, step: dict[str, Any]) -> dict[str, Any]:
        ((kind, data),) = step.items()
        if kind == "request_range":
            return {"response_range": {"header": {"revision": str(self.revision)}} | self.range(data)}
        self.change(data, is_put=kind == "request_put")
        return {kind.replace("request", "response"): {"header": {"revision": str(self.revision)}}}

    def range(self, data: dict[str, Any]) -> dict[str, Any]:
        first = base64.b64decode(data["key"])
        end = base64.b64decode(data["range_end"]) if "range_end" in data else first + b"\0"
        keys = slice(bisect.bisect_left(self.order, first), bisect.bisect_left(self.order, end))
        count = max(keys.stop - keys.start, 0)
        kvs = {} if data.get("count_only") else {
            "kvs": [self.pairs[base64.b64encode(key).decode()] for key in self.order[keys]]}
        return {**kvs, "count": str(count)} if count else {}

    def change(self, data: dict[str, Any], *, is_put: bool) -> None:
        before = self.pairs.pop(data["key"], None)
        if is_put != (before is not None):
            key = base64.b64decode(data["key"])
            place = bisect.bisect_left(self.order, key)
            self.order[place:place + (before is not None)] = [key] if is_put else []
        if is_put:
            self.revision += 1
            created = before["create_revision"] if before else str(self.revision)
            self.pairs[data["key"]] = {"key": data["key"], "value": data["value"], "create_revision": created,
                                       **({"lease": data["lease"]} if data.get("lease", "0") != "0" else {})}


class _Gateway(BaseHTTPRequestHandler):
    server: FakeEtcd

    def do_POST(self) -> None:
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            status, answer = self.answer(data)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return self.server.do(self.path, data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class FakeFleetLock(ThreadingHTTPServer):
    """A FleetLock service with one group, `prod`, by the specification
    (https://coreos.github.io/zincati/development/fleetlock/protocol/) and with the answers of airlock: 500
    `failed_lock` both for a full semaphore and for a host that changed it at the same time."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, slots: int) -> None:
        super().__init__(("127.0.0.1", 0), _FleetLockRequest)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.slots = slots
        self.holders: set[str] = set()
        self.most = 0
        self.conflicts = 0
        """How many of the next requests for a slot meet another host."""
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def do(self, path: str, has_header: bool, data: dict[str, Any]) -> tuple[int, dict[str, str]]:
        host = data.get("client_params", {})
        if not has_header or not host.get("id"):
            return 400, {"kind": "bad_request", "value": "not a FleetLock request"}
        if host.get("group") != "prod":
            return 400, {"kind": "unknown_group", "value": "unknown group"}
        if path.endswith("/v1/steady-state"):
            self.holders.discard(host["id"])
            return 200, {}
        if self.conflicts:
            self.conflicts -= 1
            return 500, {"kind": "failed_lock", "value": "conflict on semaphore detected, aborting"}
        if host["id"] not in self.holders and len(self.holders) >= self.slots:
            return 500, {"kind": "failed_lock", "value": f"all {self.slots} semaphore slots currently locked"}
        self.holders.add(host["id"])
        self.most = max(self.most, len(self.holders))
        return 200, {}


class _FleetLockRequest(_Gateway):
    server: FakeFleetLock  # type: ignore[assignment]

    def answer(self, data: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return self.server.do(self.path, self.headers.get("fleet-lock-protocol") == "true", data)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
