"""What a lock service may answer besides a slot, by both protocols: what that means, and what has to be changed."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dockerd_guard.fleet.etcd import Etcd
from dockerd_guard.fleet.fleetlock import FleetLock
from dockerd_guard.fleet.http import Service
from dockerd_guard.fleet.lock import Fault, Host, LockError, Slot
from dockerd_guard.policy.model import FleetTls
from tests.support.bad_answers import BOTH, HTML, SECRET, Bad, hang, json_answer
from tests.support.lock_services import answering, http_answer, read_request

HOST = Host("28a511d43a904103968fb838342be6e4", "web1", "boot")
SLOT = Slot("prod", HOST.id, 0, 7, 8)

FULL, UNREACHABLE, INVALID, TLS = Fault.FULL, Fault.UNREACHABLE, Fault.INVALID, Fault.TLS


NO_TLS = FleetTls()


def etcd(*endpoints: str, tls: FleetTls = NO_TLS, timeout_s: float = 1.0) -> Etcd:
    return Etcd(Service(endpoints, tls, timeout_s, 10.0), "prod", 2, 60)


def fleetlock(*endpoints: str, tls: FleetTls = NO_TLS, timeout_s: float = 1.0) -> FleetLock:
    return FleetLock(Service(endpoints, tls, timeout_s, 10.0), "prod", HOST.id)


def refused(act: Callable[[], object]) -> LockError:
    with pytest.raises(LockError) as caught:
        act()
    assert SECRET not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


ETCD = (
    Bad("an empty object", json_answer({}), INVALID, "no header"),
    Bad("a number as header", json_answer({"header": 7}), INVALID, "no header"),
    Bad("a list of no keys", json_answer({"header": {}, "kvs": [7]}), INVALID, "an unknown answer"),
    Bad("keys that are no base64", json_answer({"header": {}, "kvs": [{"key": "?"}]}), INVALID, "an unknown answer"),
    Bad("keys that are no text", json_answer({"header": {}, "kvs": [{"key": "/w=="}]}), INVALID, "an unknown answer"),
    Bad("a member that stops", json_answer(
        {"error": "grpc: the client connection is closing", "code": 1}, "408 Request Timeout"), UNREACHABLE, "closing"),
    Bad("too many requests to etcd", json_answer(
        {"error": "etcdserver: too many requests", "code": 8}, "429 Too Many Requests"), UNREACHABLE, "too many"),
    Bad("no leader", json_answer({"error": "etcdserver: no leader", "code": 14}, "503 Service Unavailable"),
        UNREACHABLE, "etcdserver: no leader"),
    Bad("a user without a role", json_answer({"message": "permission denied"}, "403 Forbidden"), TLS,
        "permission denied"),
    Bad("etcd 3.3", http_answer(b"Not Found", "404 Not Found"), INVALID, "etcd must be 3.4 or later"),
)

def refusal(status: str, kind: object, value: object) -> bytes:
    return json_answer({"kind": kind, "value": value}, status)


FLEETLOCK = (
    # As airlock answers.
    Bad("full", refusal("500 Error", "failed_lock", "all 2 semaphore slots currently locked"), FULL,
        "all slots of the group prod are taken"),
    Bad("a race without end", refusal("500 Error", "failed_lock", "conflict on semaphore detected, aborting"), FULL,
        "are taken"),
    Bad("its etcd hangs", refusal("500 Error", "failed_sem_init", SECRET), UNREACHABLE, "failed_sem_init"),
    # The slot may be taken all the same: not "full", after which it would not be given back.
    Bad("its etcd hangs later", refusal("500 Error", "failed_lock", "context deadline exceeded"), UNREACHABLE,
        "the lock service in correct.fleet.endpoints is not available: Check its log: HTTP status 500, failed_lock"),
    Bad("its etcd has no leader", refusal("500 Error", "failed_lock", "etcdserver: no leader"), UNREACHABLE, "its log"),
    Bad("its etcd has something else", refusal("500 Error", "failed_lock", "empty semaphore value"), INVALID,
        "gives no slot of the group prod: HTTP status 500, failed_lock"),
    Bad("an unknown group", refusal("400 Bad Request", "unknown_group", 'unknown group "prod"'), INVALID,
        "Correct correct.fleet.group in the policy, or configure"),
    Bad("a proxy that removes the header", refusal("400 Bad Request", "invalid_client_identity", SECRET), INVALID,
        "must pass on the header fleet-lock-protocol"),
    # As other services answer.
    Bad("full, as in the specification", refusal("500 Error", "failed_lock_semaphore_full", ""), FULL, "are taken"),
    Bad("full, poseidon/fleetlock", refusal("423 Locked", "locked", f"reboot lease unavailable, held by {SECRET}"),
        FULL, "are taken"),
    Bad("full, heathcliff26/fleetlock", refusal("423 Locked", "all_slots_full", "Could not reserve a slot"), FULL,
        "are taken"),
    Bad("full, knubbis-fleetlock", refusal("409 Conflict", "failed_lock", ""), FULL,
        "are taken"),
    Bad("an unknown group, knubbis-fleetlock",
        refusal("500 Error", "failed_lock", "group does not exist in config"), INVALID, "correct correct.fleet.group"),
    Bad("an internal error, poseidon/fleetlock", refusal("500 Error", "internal_error", SECRET), UNREACHABLE,
        "internal_error"),
    # Neither is one.
    Bad("an error with the status of success", refusal("200 OK", "failed_lock", SECRET), INVALID, "does not answer as"),
    Bad("another error with that status", json_answer({"error": SECRET}), INVALID, "does not answer as FleetLock"),
    Bad("the answer that it did not", json_answer(False), INVALID, "does not answer as FleetLock"),
    Bad("a file that is locked", http_answer(HTML, "423 Locked"), INVALID, "HTTP status 423"),
    Bad("a kind that is no text", refusal("400 Bad Request", ["x"], 1), INVALID, "does not answer as FleetLock"),
    Bad("a value that is no text", refusal("500 Error", "failed_lock", 7), INVALID, "gives no slot of the group prod"),
)


@pytest.mark.parametrize("bad", (*BOTH, *ETCD), ids=lambda bad: bad.name)
def test_bad_answers_in_place_of_etcd(bad: Bad) -> None:
    check(bad, etcd)


@pytest.mark.parametrize("bad", (*BOTH, *FLEETLOCK), ids=lambda bad: bad.name)
def test_bad_answers_in_place_of_fleetlock(bad: Bad) -> None:
    check(bad, fleetlock)


def check(bad: Bad, client: Callable[[str], Etcd | FleetLock]) -> None:
    with answering(bad.answer) as (place, _):
        began = time.monotonic()
        error = refused(lambda: client(f"http://{place}").acquire(HOST))
        assert time.monotonic() - began < 3
    assert (error.fault, bad.words in str(error)) == (bad.fault, True), str(error)
    if error.fault in (INVALID, TLS):
        assert "correct.fleet." in str(error)


HEADER = {"header": {"revision": "5"}}
LEASE = json_answer(HEADER | {"ID": "7", "TTL": "60"})
FREE = json_answer(HEADER | {"succeeded": True, "responses": [{"response_range": HEADER}] * 5})
RACE = json_answer(HEADER | {"responses": [{"response_range": HEADER}] * 5})


def found(number: int, *pairs: dict[str, object]) -> bytes:
    """The group as it is read, with these pairs in one of its five parts."""
    responses: list[dict[str, object]] = [{"response_range": HEADER} for _ in range(5)]
    responses[number] = {"response_range": HEADER | {"kvs": pairs}}
    return json_answer(HEADER | {"succeeded": True, "responses": responses})


@pytest.mark.parametrize(("name", "answers", "fault"), [
    ("nothing of the group", (json_answer(HEADER),), INVALID),
    ("a part of the group", (json_answer(HEADER | {"responses": [{"response_range": HEADER}] * 4}),), INVALID),
    ("another operation", (json_answer(HEADER | {"responses": [{"response_put": HEADER}] * 5}),), INVALID),
    ("a million operations", (json_answer(HEADER | {"responses": [{}] * 300_000}),), INVALID),
    ("a slot that is no key", (found(0, {"key": "?"}),), INVALID),
    ("a stop that is no text", (found(1, {"key": "/w=="}),), INVALID),
    ("no lease", (FREE, json_answer(HEADER)), INVALID),
    ("a lease of 64 digits", (FREE, json_answer(HEADER | {"ID": "7" * 64})), INVALID),
    ("it succeeded, as a text", (FREE, LEASE, json_answer(HEADER | {"succeeded": "yes"})), INVALID),
    ("an empty transaction", (FREE, LEASE, json_answer({"succeeded": True})), INVALID),
    ("a page in place of the transaction", (FREE, LEASE, http_answer(HTML)), INVALID),
    ("no revision", (FREE, LEASE, json_answer({"header": {"revision": "x"}, "succeeded": True})), INVALID),
    ("it hangs at the transaction", (FREE, LEASE, hang), UNREACHABLE),
    ("always another host is faster", (FREE, LEASE, RACE, RACE, RACE, LEASE), FULL),
], ids=lambda value: value if isinstance(value, str) else "")
def test_bad_answers_while_a_slot_is_taken(
        name: str, answers: tuple[bytes | Callable[[socket.socket], None], ...], fault: Fault) -> None:
    with answering(*answers) as (place, _):
        assert refused(lambda: etcd(f"http://{place}").acquire(HOST)).fault is fault


@pytest.mark.parametrize(("answer", "is_ours"), [
    # etcd answers this for a lease that has expired.
    (json_answer({"result": HEADER | {"ID": "7"}}), False),
    (json_answer({"result": HEADER | {"ID": "7", "TTL": "-1"}}), False),
    (json_answer({"result": HEADER | {"ID": "7", "TTL": 60}}), False),
])
def test_a_lease_without_a_time_is_lost(answer: bytes, is_ours: bool) -> None:
    with answering(answer) as (place, _):
        assert etcd(f"http://{place}").still(SLOT) is is_ours


@pytest.mark.parametrize("answer", [http_answer(HTML), json_answer({}), json_answer({"error": "x"}, "500 Error"), b""])
def test_no_answer_keeps_a_slot_but_a_right_one(answer: bytes) -> None:
    with answering(answer) as (place, _):
        refused(lambda: etcd(f"http://{place}").still(SLOT))


@pytest.mark.parametrize("answer", [json_answer({}), json_answer({"error": "x"}), http_answer(HTML)])
@pytest.mark.parametrize("act", [lambda lock: lock.stop(HOST, "dead"), lambda lock: lock.resume(None)])
def test_no_answer_stops_or_resumes_a_group_but_a_right_one(act: Callable[[Etcd], object], answer: bytes) -> None:
    with answering(answer) as (place, _):
        assert refused(lambda: act(etcd(f"http://{place}"))).fault is INVALID


@pytest.mark.parametrize("answer", [
    http_answer(b""), json_answer({}), http_answer(b"OK\n"), http_answer(b"retained reboot lease"), http_answer(b" \n"),
    json_answer(None), json_answer(True), json_answer({"kind": "lock_acquired", "value": "ok to reboot"}),
    json_answer({"kind": "success", "value": "The operation was succesfull"}), b"HTTP/1.0 200 OK\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nO\r\n1\r\nK\r\n0\r\n\r\n",
    http_answer(b"{}", "200 OK", "Content-Encoding: identity")])
def test_what_a_fleetlock_service_agrees_with(answer: bytes) -> None:
    with answering(answer) as (place, received):
        lock = fleetlock(f"http://{place}/base/")
        assert lock.acquire(HOST) == Slot("prod", HOST.id)
        assert lock.still(SLOT)
        assert lock.release(SLOT)
    assert [request.split(b" ")[1] for request in received] == [
        b"/base/v1/pre-reboot", b"/base/v1/pre-reboot", b"/base/v1/steady-state"]
    head, _, body = received[0].partition(b"\r\n\r\n")
    assert b"fleet-lock-protocol: true" in head.split(b"\r\n")
    assert json.loads(body) == {"client_params": {"id": HOST.id, "group": "prod"}}


def test_a_race_is_asked_again_at_once() -> None:
    race = json_answer({"kind": "failed_lock", "value": "conflict on semaphore detected, aborting"}, "500 Error")
    with answering(race, race, http_answer(b"")) as (place, received):
        assert fleetlock(f"http://{place}").acquire(HOST)
    assert len(received) == 3


def test_a_race_while_a_slot_is_given_back_is_asked_again_at_once() -> None:
    """airlock answers the same to each host that gives one back at the same time."""
    race = refusal("500 Error", "failed_lock", "conflict on semaphore detected, aborting")
    with answering(race, race, http_answer(b"")) as (place, received):
        assert fleetlock(f"http://{place}").release(SLOT)
    assert [request.split(b" ")[1] for request in received] == [b"/v1/steady-state"] * 3


@pytest.mark.parametrize("answer", [refusal("500 Error", "failed_lock", "context deadline exceeded"),
                                    refusal("500 Error", "failed_unlock", "Internal Server Error"),
                                    refusal("500 Error", "failed_lock", "conflict on semaphore detected, aborting")])
def test_a_slot_that_is_not_taken_back(answer: bytes) -> None:
    """It said "all slots of the group prod are taken: Wait"."""
    with answering(answer) as (place, _):
        error = refused(lambda: fleetlock(f"http://{place}").release(SLOT))
    assert (error.fault, error.reason) == (
        UNREACHABLE, "the lock service does not take back the slot of the group prod")


def test_chunks_of_one_byte_take_no_memory() -> None:
    def many(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"1\r\n \r\n" * 300_000 + b"0\r\n\r\n")
    with answering(many) as (place, _):
        tracemalloc.start()
        try:
            refused(lambda: etcd(f"http://{place}", timeout_s=10.0).acquire(HOST))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # 300,000 bytes as objects of their own: 12 MB. What is sent is in here too, 1.8 MB.
    assert peak < 8_000_000


def test_a_slot_that_another_host_has_by_now() -> None:
    full = json_answer({"kind": "failed_lock", "value": "all 2 semaphore slots currently locked"}, "500 Error")
    with answering(full) as (place, _):
        assert not fleetlock(f"http://{place}").still(SLOT)


def test_the_next_endpoint_is_asked() -> None:
    with answering(hang) as (silent, asked), answering(http_answer(b"")) as (place, received):
        lock = fleetlock("http://127.0.0.1:1", f"http://{silent}", f"http://{place}", timeout_s=0.3)
        assert lock.acquire(HOST)
        assert lock.release(SLOT)
        assert (len(asked), len(received)) == (1, 2)
        nobody = refused(lambda: fleetlock("http://127.0.0.1:1", f"http://{silent}", timeout_s=0.3).acquire(HOST))
    assert nobody.reason == "the lock service in correct.fleet.endpoints is not available"
    assert nobody.next_step == f"Check 127.0.0.1:1: Connection refused; Check {silent}: timed out"


def test_the_deadline_is_for_all_requests() -> None:
    with answering(hang) as (place, asked):
        service = Service([f"http://{place}"] * 10, FleetTls(), 0.2, 0.5)
        began = time.monotonic()
        refused(lambda: service.post("x", {}))
        assert time.monotonic() - began < 1.5
        assert len(asked) <= 3


def test_a_name_that_does_not_resolve() -> None:
    error = refused(lambda: etcd("https://etcd.invalid:2379").acquire(HOST))
    assert (error.fault, "cannot be resolved" in error.next_step) == (UNREACHABLE, True)


def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering(http_answer(b"")) as (place, _):
        assert fleetlock(f"http://{place}").acquire(HOST)


# --- TLS ------------------------------------------------------------------------------------------


class Files(NamedTuple):
    """A CA, and what it signed: a server named localhost, a client. `stranger` is signed by nobody."""

    directory: Path

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def client(self, ca: str = "ca", cert: str = "client") -> FleetTls:
        return FleetTls(self.path(f"{ca}.pem"), self.path(f"{cert}.pem"), self.path(f"{cert}.key"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("tls")
    # Python 3.13 is strict: openssl makes a CA of everything, and a CA needs a key usage.
    new = ("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
           "-addext keyUsage=keyCertSign,digitalSignature")
    signed = "-CA ca.pem -CAkey ca.key -addext subjectAltName=DNS:localhost"
    subprocess.run(["sh", "-ec", f"""
        {new} -subj /CN=ca -keyout ca.key -out ca.pem
        {new} -subj /CN=stranger -keyout stranger.key -out stranger.pem
        for name in server client; do {new} -subj /CN=$name {signed} -keyout $name.key -out $name.pem; done
        openssl ec -in client.key -aes128 -passout pass:{SECRET} -out locked.key
        mkfifo pipe.pem pipe.key; cp client.pem locked.pem; echo nonsense > broken.pem; cp client.key broken.key
        """], cwd=directory, check=True, capture_output=True)
    return Files(directory)


@contextlib.contextmanager
def tls_service(files: Files, *, mutual: bool = True) -> Iterator[str]:
    """A FleetLock service with TLS that agrees with everything."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.path("server.pem"), files.path("server.key"))
    if mutual:
        context.load_verify_locations(files.path("ca.pem"))
        context.verify_mode = ssl.CERT_REQUIRED

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            read_request(secure)
            secure.sendall(http_answer(b""))

    with answering(answer, reads=False) as (place, _):
        yield place.replace("127.0.0.1", "localhost")


def test_a_service_with_tls(files: Files) -> None:
    with tls_service(files) as place:
        assert fleetlock(f"https://{place}", tls=files.client()).acquire(HOST)


class Refused(NamedTuple):
    """The endpoint, the names of the CA and of the certificate that the client uses, and what comes of it."""

    name: str
    endpoint: str
    ca: str
    cert: str
    fault: Fault
    words: str


REFUSED = (
    Refused("another CA", "https://{}", "stranger", "client", TLS, "correct.fleet.tls.ca"),
    Refused("another name", "https://127.0.0.1:{port}", "ca", "client", TLS, "correct.fleet.endpoints"),
    Refused("no CA file", "https://{}", "missing", "client", TLS, "correct.fleet.tls.ca cannot be used"),
    Refused("a CA file that is none", "https://{}", "broken", "client", TLS, "correct.fleet.tls.ca cannot be used"),
    Refused("no certificate file", "https://{}", "ca", "missing", TLS, "correct.fleet.tls.cert and"),
    Refused("a CA file that is a pipe", "https://{}", "pipe", "client", TLS, "tls.ca cannot be used"),
    Refused("a key that is a pipe", "https://{}", "ca", "pipe", TLS, "Correct the file: it is not a regular file"),
    Refused("a broken certificate", "https://{}", "ca", "broken", TLS, "correct.fleet.tls.cert and"),
    Refused("an encrypted key", "https://{}", "ca", "locked", TLS, "encrypted"),
    Refused("a certificate of another CA", "https://{}", "ca", "stranger", TLS, "correct.fleet.tls.cert"),
    Refused("http where there is TLS", "http://{}", "ca", "client", UNREACHABLE, "Check localhost:"),
)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_tls_that_is_refused(files: Files, row: Refused) -> None:
    with tls_service(files) as place:
        url = row.endpoint.format(place, port=place.rpartition(":")[2])
        error = refused(lambda: fleetlock(url, tls=files.client(row.ca, row.cert)).acquire(HOST))
    assert (error.fault, row.words in str(error)) == (row.fault, True), str(error)
    assert "nonsense" not in str(error)


def test_no_certificate_where_one_is_needed(files: Files) -> None:
    with tls_service(files) as place:
        error = refused(lambda: fleetlock(f"https://{place}", tls=FleetTls(files.path("ca.pem"))).acquire(HOST))
    assert (error.fault, "correct.fleet.tls.cert" in error.next_step) == (TLS, True)


def test_no_certificate_where_none_is_needed(files: Files) -> None:
    with tls_service(files, mutual=False) as place:
        assert fleetlock(f"https://{place}", tls=FleetTls(files.path("ca.pem"))).acquire(HOST)
        # The CA of this test is none of the system.
        assert refused(lambda: fleetlock(f"https://{place}").acquire(HOST)).fault is TLS


def test_a_service_without_tls() -> None:
    with answering(http_answer(b""), reads=False) as (place, _):
        error = refused(lambda: fleetlock(f"https://{place}").acquire(HOST))
    assert (error.fault, "does not use TLS" in error.reason) == (INVALID, True), str(error)


def test_a_handshake_that_hangs() -> None:
    with answering(hang, reads=False) as (place, _):
        began = time.monotonic()
        error = refused(lambda: fleetlock(f"https://{place}", timeout_s=0.5).acquire(HOST))
        assert time.monotonic() - began < 2
    assert (error.fault, error.next_step.endswith("timed out")) == (UNREACHABLE, True)
