"""The lock service of a storm: a real etcd, or an etcd in this process for hosts in simulated time.

Both are asked by the code that the fleet helper runs. Requests are counted for each host.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest

from dockerd_guard.fleet.etcd import ROOT
from dockerd_guard.fleet.http import Reply, Service
from tests.support.lock_services import FakeEtcd

SENTINEL = "end"


class Requests:
    """Counts the requests of each host, in the thread that acts for it."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self._host = threading.local()

    def act_for(self, host: int) -> None:
        self._host.number = host

    def count(self) -> None:
        self.counts[self._host.number] += 1


class StormService(Protocol):
    """What a storm needs besides the requests of its hosts. It is not asked by the code that is tested."""

    url: str
    requests: Requests

    def revoke(self, lease: int) -> None:
        """End a lease, as its time would."""

    def created(self, group: str, number: int) -> int:
        """The revision that created a slot that is taken now; 0 for a free one."""

    def most_at_once(self, group: str) -> int:
        """How many slots of a group were taken at once at the most."""


class EtcdProcess:
    """A real etcd. Its history, by revision, says who had a slot."""

    def __init__(self, url: str, patch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.requests = _counted(patch)

    def revoke(self, lease: int) -> None:
        self._ask("lease/revoke", {"ID": str(lease)})

    def created(self, group: str, number: int) -> int:
        found = self._ask("kv/range", {"key": _encoded(f"{ROOT}/{group}/slot/{number}")}).get("kvs", [])
        return int(found[0]["create_revision"]) if found else 0

    def most_at_once(self, group: str) -> int:
        self._ask("kv/put", {"key": _encoded(f"{ROOT}/{group}/slot/{SENTINEL}")})
        taken: set[str] = set()
        most = revision = 0
        for event in self._history(f"{ROOT}/{group}/slot/"):
            if int(event["kv"]["mod_revision"]) != revision:
                # A transaction is one revision, and may have several events.
                most, revision = max(most, len(taken)), int(event["kv"]["mod_revision"])
            key = base64.b64decode(event["kv"]["key"]).decode()
            if event.get("type") == "DELETE":
                taken.discard(key)
            elif key.endswith(SENTINEL):
                return max(most, len(taken))
            else:
                assert event["kv"]["version"] == "1", f"{key} was taken twice"
                taken.add(key)
        raise AssertionError("the history of etcd ends early")

    def _history(self, prefix: str) -> Iterator[Mapping[str, Any]]:
        """Every change of these keys, oldest first."""
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        connection.request("POST", "/v3/watch", json.dumps({"create_request": {
            "key": _encoded(prefix), "range_end": _encoded(f"{prefix[:-1]}0"), "start_revision": "1"}}))
        with connection.getresponse() as answer:
            while line := answer.readline():
                yield from json.loads(line)["result"].get("events", ())

    def _ask(self, path: str, data: Mapping[str, object]) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/v3/{path}", json.dumps(data).encode(), 60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


class EtcdInProcess(FakeEtcd):
    """An etcd that is called instead of asked by HTTP."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.requests = _counted(patch, self.do)
        self._most: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()

    def change(self, data: dict[str, Any], *, is_put: bool) -> None:
        was_there = data["key"] in self.pairs
        super().change(data, is_put=is_put)
        self._note(data["key"], (data["key"] in self.pairs) - was_there)

    def expire(self, lease: int) -> None:
        before = set(self.pairs)
        super().expire(lease)
        for key in before - set(self.pairs):
            self._note(key, -1)

    def _note(self, key: str, change: int) -> None:
        prefix, _, _ = base64.b64decode(key).decode().rpartition("/")
        self._taken[prefix] += change
        self._most[prefix] = max(self._most[prefix], self._taken[prefix])

    def revoke(self, lease: int) -> None:
        self.expire(lease)

    def created(self, group: str, number: int) -> int:
        pair = self.pairs.get(_encoded(f"{ROOT}/{group}/slot/{number}"))
        return int(pair["create_revision"]) if pair else 0

    def most_at_once(self, group: str) -> int:
        return self._most[f"{ROOT}/{group}/slot"]


def _counted(patch: pytest.MonkeyPatch, do: Callable[[str, Any], tuple[int, Any]] | None = None) -> Requests:
    """Count the requests of every client from now on, and give them to this function instead of a connection."""
    requests, post = Requests(), Service.post

    def counted(self: Service, path: str, body: Mapping[str, object], *others: Any) -> Reply:
        requests.count()
        return post(self, path, body, *others) if do is None else Reply(*do(f"/{path}", body))
    patch.setattr(Service, "post", counted)
    return requests


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
