"""Starts of the real dockerd of each release, compared with the predictions of dockerd_guard.dockerd.

A script replaces dockerd's containerd. dockerd runs it right after it has opened its sockets; the script records what
listens and kills dockerd. A start takes a tenth of a second and changes nothing else.
"""

from __future__ import annotations

import json
import shlex

import pytest

from dockerd_guard.dockerd.daemon import resolve_daemon
from dockerd_guard.dockerd.version import Version
from dockerd_guard.model.address import Tls
from tests.machines.machine import Machine

STARTER = r"""
import json, os, re, subprocess, sys
os.makedirs("/try/bin", exist_ok=True)
with open("/try/bin/containerd", "w") as file:
    file.write("#!/bin/sh\ncd /proc/$PPID/net && /bin/cat tcp tcp6 unix >/try/net\nkill -9 $PPID\n")
os.chmod("/try/bin/containerd", 0o755)
if not os.path.exists("/try/bin/docker-proxy"):
    os.symlink("/usr/sbin/docker-proxy", "/try/bin/docker-proxy")
outcomes = []
for argv, text, environ in json.load(sys.stdin):
    subprocess.run("rm -f /try/net /try/*.sock /run/docker.pid /var/run/docker.sock", shell=True)
    with open("/try/daemon.json", "w") as file:
        file.write(text)
    done = subprocess.run(["/usr/sbin/dockerd", "--data-root=/try/data", "--config-file=/try/daemon.json", *argv],
                          env={"PATH": "/try/bin", "HOME": "/root", **environ}, cwd="/try", timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    net = open("/try/net").read() if os.path.exists("/try/net") else ""
    tcp = sorted({int(port, 16) for port in re.findall(r":([0-9A-F]{4}) [0-9A-F]+:0000 0A", net)})
    unix = sorted(set(re.findall(r"0001 01 +\d+ (/(?:try|var/run/docker\.sock)\S*)", net)))
    outcomes.append([bool(net), tcp, unix, done.stdout])
json.dump(outcomes, sys.stdout)
"""

UNIX = "-H unix:///try/a.sock"
PLAIN = "--tls=false"
"""Without it, dockerd waits 16 s before it opens TCP without TLS."""

ROWS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (UNIX, "", {}),
    (f"{UNIX} -H unix://", "{}", {}),
    (f"{PLAIN} -H tcp://0.0.0.0:4001 -DH=:4002 -H '[::1]:4003'", "{}", {}),
    (f"{PLAIN} -H tcp://user@0.0.0.0:04004?x#y", "{}", {}),
    (f"{PLAIN} -H tcp://:::4005", "{}", {}),
    (f"{PLAIN} -H tcp://[localhost]:4006", "{}", {}),
    (f"{PLAIN} -H ::", "{}", {}),
    (PLAIN, '{"hosts": ["localhost:4007", "unix:///try/b.sock"]}', {}),
    (PLAIN, '{"hosts": ["localhost:4008"], "hosts": [null, "unix:///try/b.sock"]}', {}),
    (UNIX, '{"hosts": []}', {}),
    (UNIX, '{"host": ["tcp://0.0.0.0:4009"]}', {}),
    (UNIX, '{"Hosts": []}', {}),
    (UNIX, '{"x": {"live-restore": true}}', {}),
    (UNIX, '{"x": {"validate": true}}', {}),
    (UNIX, '{"debug": true} and more', {}),
    (UNIX, '\ufeff{"debug": true}', {}),
    ("-H unix://@abstract", "{}", {}),
    ("-H unix:///try/" + "a" * 100, "{}", {}),
    ("-H unix:///try/" + "a" * 103, "{}", {}),
    (f"{PLAIN} -H 4010", "{}", {}),
    (f"{PLAIN} -H tcp://0.0.0.0:4011/", "{}", {}),
    (f"{PLAIN} -H tcp://0.0.0.0:65536", "{}", {}),
    (f"{UNIX} --tlscacert=", "{}", {}),
    (f"{UNIX} --tls=yes", "{}", {}),
    (f"{UNIX} --tls false", "{}", {}),
    (f"{UNIX} -GH x", "{}", {}),
    (f"{UNIX} -G nobodysgroup", "{}", {}),
    (f"{UNIX} --registry-mirror --debug", "{}", {}),
    # These have TLS without certificates.
    (f"{UNIX} --tls", "{}", {}),
    (f"{UNIX} --tls=false", "{}", {"DOCKER_TLS_VERIFY": "1"}),
    (UNIX, '{"x": {"tlsverify": false}}', {}),
    (UNIX, '{"tlsverify": null}', {}),
    (UNIX, "{}", {"DOCKER_TLS_VERIFY": "1"}),
)


def sockets(addresses: list[str]) -> tuple[list[int], list[str]]:
    tcp = {int(address.rpartition(":")[2]) for address in addresses if address.startswith("tcp://")}
    return sorted(tcp), sorted(address.removeprefix("unix://") for address in addresses if address.startswith("unix"))


def test_predicted_start_matches_dockerd(bare_machine: Machine) -> None:
    # dockerd starts a containerd only if the system has none.
    bare_machine.run("systemctl stop docker.socket docker.service containerd.service; rm -rf /run/containerd")
    version = Version.parse(bare_machine.run(["dpkg-query", "--show", "--showformat=${Version}", "docker.io"]).out)
    cases = [(shlex.split(line), text, environ) for line, text, environ in ROWS]
    outcomes = json.loads(bare_machine.run(["python3", "-c", STARTER], input=json.dumps(cases)).out)
    content = {path: bare_machine.run(["cat", path]).out.encode() for path in ("/etc/group", "/etc/nsswitch.conf")}
    wrong: list[str] = []
    for (argv, text, environ), (started, tcp, unix, output) in zip(cases, outcomes, strict=True):
        content["/try/daemon.json"] = text.encode()
        daemon = resolve_daemon(("dockerd", "--config-file=/try/daemon.json", *argv), {"HOME": "/root", **environ},
                                content.__getitem__, version)
        if daemon.starts and daemon.tls.mode is not Tls.NONE:
            good = not started and "X509 key pair" in output
        elif daemon.starts:
            good = started and (tcp, unix) == tuple(sockets([host.address for host in daemon.hosts]))
        else:
            good = not started
        if not good:
            wrong.append(f"{shlex.join(argv)} {text} {environ}: {daemon.reason or daemon.hosts}, but really "
                         f"{(tcp, unix) if started else output.strip().splitlines()[-1:]}")
    if wrong:
        pytest.fail("\n".join(wrong))
