"""Commands that start dockerd in text that is not evaluated, and the hosts that they give it."""

from __future__ import annotations

import pytest

from dockerd_guard.observe.dockerd_commands import first_host
from tests.support.cpu_time import check_cpu_time

TCP = r"""
dockerd -H tcp://10.0.0.5:2375
dockerd -H $IP:2375
dockerd -H "${IP}:2375" -H unix:///run/docker.sock
dockerd -H "tcp://$(hostname -i):2375"
dockerd -H myhost:2375
dockerd -H :4243
dockerd -H=0.0.0.0:4243
dockerd -H [::]:4243
dockerd -DH 0.0.0.0:4243
dockerd -Htcp://0.0.0.0
dockerd -D --data-root /x --host 0.0.0.0
/usr/bin/dockerd -H tcp://0.0.0.0:2375
//usr/bin/dockerd -H tcp://0.0.0.0:2375
CMD ["dockerd", "-H", "tcp://10.0.0.5:2375"]
command: [dockerd, --host, "0.0.0.0:2375"]
command:\n- dockerd\n- -H\n- 0.0.0.0:4243
args:\n  - /usr/bin/dockerd\n  - --host=tcp://10.0.0.5
sh -c 'exec dockerd-entrypoint.sh --host=tcp://0.0.0.0:2376'
exec dockerd -H fd:// \\n  -H tcp://10.0.0.5:1
P=tcp; dockerd -H $P://0.0.0.0:4243
DOCKER_HOST=tcp://0.0.0.0:2375\nexec dockerd --host=$DOCKER_HOST
OPTS="--debug --host localhost:4243"\ndockerd $OPTS
HOSTS="-H tcp://0.0.0.0:1"; nohup dockerd $HOSTS &
""".strip().split("\n")

UNKNOWN = r"""
dockerd --host=$HOST
dockerd --host "$(hostname -i)"
dockerd --host={{ host }}
""".strip().split("\n")

LOCAL = r"""
dockerd -H unix:///run/docker.sock -H fd://
dockerd -H "unix://$DIR/docker.sock" --data-root $DATA
S=unix:///run/x; dockerd -H $S
D=/run; S=unix://$D/x; dockerd --host="$S"
dockerd --debug; docker -H tcp://10.0.0.5:1 ps
dockerd --debug && curl -H "$AUTH" x
dockerd --metrics-addr 0.0.0.0:9323 --bip 10.0.0.1/24 --dns 192.0.2.1
grep -q "dockerd -H" /lib/systemd/system/docker.service
sed -i 's/dockerd -H fd:/dockerd -H unix:/' docker.service
echo "run dockerd -H <host>"
echo "dockerd -H to set the host"
""".strip().split("\n")


@pytest.mark.parametrize(("line", "what"), [
    *((line, "names a TCP address for dockerd") for line in TCP),
    *((line, "gives dockerd a host that is not known") for line in UNKNOWN)])
def test_a_host_that_may_be_tcp(line: str, what: str) -> None:
    found = first_host("x\n" + line.replace("\\n", "\n") + "\n")
    assert found is not None and found[1] == what


@pytest.mark.parametrize("line", LOCAL)
def test_hosts_of_no_network(line: str) -> None:
    assert first_host("x\n" + line.replace("\\n", "\n") + "\n") is None


def test_hosts_beyond_a_limit_are_named() -> None:
    found = first_host("dockerd -H unix:///a " * 5_002)
    assert found is not None and found[1] == "gives dockerd options that are not known"


@pytest.mark.parametrize("text", [
    "dockerd -H $X ", "dockerd -", "dockerd $A ", "A=$A$A dockerd $A\n", "dockerd \\\n", "- dockerd\n", "dockerd -H "])
def test_long_texts_end_soon(text: str) -> None:
    def work() -> None:
        first_host("X=unix:\n" + (text * 300_000)[:1 << 20])

    check_cpu_time(work, 1)
