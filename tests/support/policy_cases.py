"""Policies and values, with how they are read or why they are refused. Also for the JSON Schema."""

from __future__ import annotations

from typing import Any

FULL = """\
version: 1
mode: enforce
sockets:
  - fd://
  - address: tcp://127.0.0.1:2376
    tls: mutual
socket_unit:
  listen: [/run/docker.sock]
tls:
  ca: /etc/docker/ca.pem
  cert: /etc/docker/server-cert.pem
  key: /etc/docker/server-key.pem
correct:
  restart: live-restore
  window: Sat,Sun 02:00-05:00 Europe/Berlin
  budget: 3/1h
  foreign_files: true
  contain: true
watch:
  settle: 100ms
  resync: 5min
waive:
  - rule: DG103
    address: tcp://127.0.0.1:2375
    reason: CI runner, loopback only
    until: 2027-03-31
"""
HEAD = "version: 1\nsockets: [fd://]\n"

Rows = tuple[tuple[Any, ...], ...]

WHAT_FD_STANDS_FOR: Rows = (
    ("sockets: [fd://]", ["unix:///run/docker.sock none 2:11"]),
    ("sockets: [tcp://10.0.0.5]", ["tcp://10.0.0.5:2375 mutual 2:11"]),
    ("sockets: [{address: tcp://10.0.0.5, tls: none}]", ["tcp://10.0.0.5:2375 none 2:21"]),
    ("sockets: [fd://]\nsocket_unit: {listen: [/run/docker.sock, 2376]}",
     ["unix:///run/docker.sock none 3:24", "tcp://[::]:2376 mutual 3:42"]),
    ("sockets: [{address: fd://, tls: server}]\nsocket_unit: {listen: ['[::1]:2376']}",
     ["tcp://[::1]:2376 server 3:24"]),
    ("sockets: [unix://]\nsocket_unit: {listen: [2375]}", ["unix:///var/run/docker.sock none 2:11"]),
)

ADDRESSES: Rows = (
    ("fd://", "fd://"),
    ("fd://*", "fd://"),
    ("unix://", "unix:///var/run/docker.sock"),
    ("unix:///run//x/../docker.sock", "unix:///run/docker.sock"),
    ("unix://@docker", "unix://@docker"),
    ("tcp://", "tcp://localhost:2375"),
    ("tcp://:2376", "tcp://localhost:2376"),
    ("tcp://localhost", "tcp://localhost:2375"),
    ("tcp://0.0.0.0", "tcp://0.0.0.0:2375"),
    ("tcp://10.1.2.3:4243", "tcp://10.1.2.3:4243"),
    ("tcp://[::1]", "tcp://[::1]:2375"),
    ("tcp://[2001:DB8::0:1]:2376", "tcp://[2001:db8::1]:2376"),
)

ADDRESSES_REFUSED: Rows = (
    ("0.0.0.0:2375", "scheme is missing"),
    ("/run/docker.sock", "scheme is missing"),
    ("TCP://1.2.3.4:1", "dockerd knows no 'TCP'"),
    ("http://1.2.3.4", "dockerd knows no 'http'"),
    ("fd://3", "fd://NUMBER"),
    ("unix://run/docker.sock", "does not begin with /"),
    ("unix:///run/docker sock", "no blank"),
    ("unix:///" + "x" * 107, "at most 107 bytes"),
    ("unix://@", "no name"),
    ("tcp://1.2.3.4:0", "ports go from 1 to 65535"),
    ("tcp://1.2.3.4:65536", "ports go from 1 to 65535"),
    ("tcp://1.2.3.4:02375", "ports go from 1 to 65535"),
    ("tcp://1.2.3.4:٢", "ports go from 1 to 65535"),
    ("tcp://1.2.3.4:2375/", "no '/'"),
    ("tcp://user@1.2.3.4:2375", "no '@'"),
    ("tcp://::1:2375", "[ADDRESS]:PORT"),
    ("tcp://[::1%eth0]:2375", "zone"),
    ("tcp://[::ffff:0.0.0.0]:2375", "the IPv4 address itself, 0.0.0.0"),
    ("tcp://docker.example.org:2376", "no IP address"),
    ("tcp://127.1:2375", "no IP address"),
)

LISTEN_STREAM: Rows = (
    ("/run/docker.sock", "unix:///run/docker.sock"),
    ("/var/run/docker.sock", "unix:///run/docker.sock"),
    ("@docker", "unix://@docker"),
    ("2375", "tcp://[::]:2375"),
    ("127.0.0.1:2375", "tcp://127.0.0.1:2375"),
    ("[::1]:2375", "tcp://[::1]:2375"),
    ("tcp://127.0.0.1:2375", None),
    ("localhost:2375", None),
    ("127.0.0.1", None),
    ("*:2375", None),
    ("02375", None),
    ("%t/docker.sock", None),
    ("/run/%n.sock", None),
    ("run/docker.sock", None),
)

MISTAKES: Rows = (
    ("", ["1:1: is empty; expected a mapping that begins with 'version: 1'"]),
    ("- fd://", ["1:1: expected the policy, a mapping with version, sockets, mode, socket_unit, tls, "
                 "correct, watch, waive; found a list"]),
    ("sockets: [fd://]", ["1:1: the key 'version' is missing in the policy"]),
    ("version: '1'\nsockets: [fd://]",
     ["1:10: expected 1, the only version of this format; found '1'"]),
    (HEAD + "sokets: []",
     ["3:1: unknown key 'sokets' in the policy; did you mean 'sockets'?"]),
    (HEAD + "mode: enforce\nmode: observe",
     ["4:1: duplicate key 'mode', already given in line 3"]),
    (HEAD + "mode: enforced",
     ["3:7: expected one of observe, enforce; found 'enforced'; did you mean 'enforce'?"]),
    (HEAD + "mode: [enforce]", ["3:7: expected one of observe, enforce; found a list"]),
    (HEAD + "mode:", ["3:6: expected one of observe, enforce; found nothing"]),
    (HEAD + "watch: {settle: 5, resync: 100ms}",
     ["3:17: expected a duration such as 100ms, 5min or 1h; found the number 5: a number without a unit",
      "3:28: expected a duration such as 100ms, 5min or 1h; found '100ms': it must be from 1s to 86400s"]),
    (HEAD + "correct: {budget: 0/1h}",
     ["3:19: expected a budget such as 3/1h, three restarts an hour; found '0/1h': at least 1; to forbid "
      "restarts say 'restart: never'"]),
    (HEAD + "correct:\n  contain: maybe", ["4:12: expected true or false; found 'maybe'"]),
    (HEAD + "tls: {key: key.pem}",
     ["3:12: expected an absolute path; found 'key.pem': it does not begin with /"]),
    (HEAD + "waive:\n  - rule: DG1\n    until: soon",
     ["4:5: the key 'reason' is missing in a waiver",
      "4:11: expected a rule such as DG103; found 'DG1'",
      "5:12: expected a date such as 2027-03-31; found 'soon': it is written YYYY-MM-DD"]),
    ("version: 1\nsockets: fd://", ["2:10: expected a list of addresses; found 'fd://'"]),
    ("version: 1\nsockets: []",
     ["2:10: expected at least one address: without any, dockerd takes its default"]),
    ("version: 1\nsockets: [fd://, unix:///var/run/docker.sock]",
     ["2:18: unix:///var/run/docker.sock is already declared in line 2"]),
    ("version: 1\nsockets: [fd://]\nsocket_unit: {listen: []}",
     ["2:11: fd:// stands for socket_unit.listen, which is empty"]),
    ("version: 1\nsockets: [tcp://0.0.0.0:2376, 'tcp://[::1]:2376']",
     ["2:31: tcp://0.0.0.0:2376 in line 2 already takes this port on every address"]),
    ("version: 1\nsockets:\n- tcp://10.0.0.1:2376\n- {address: tcp://127.0.0.1:2375, tls: none}",
     ["4:13: tls none here and mutual for tcp://10.0.0.1:2376 in line 3: dockerd has one TLS setting for all "
      "its TCP sockets"]),
    ("version: 1\nsockets:\n- {address: fd://, tls: none}\n- tcp://10.0.0.1:2376\n"
     "socket_unit: {listen: [2375]}",
     ["4:3: tls mutual here and none for tcp://[::]:2375 in line 5: dockerd has one TLS setting for all "
      "its TCP sockets"]),
    ("version: 1\nsockets: [{address: unix://, tls: mutual}]",
     ["2:35: dockerd speaks TLS on TCP only, and a UNIX socket is guarded by its file mode; leave tls out"]),
    ("version: 1\nsockets: [{address: fd://, tls: mutual}]",
     ["2:33: dockerd speaks TLS on TCP only, and no TCP address stands in socket_unit.listen; leave tls "
      "out"]),
    (b"version: 1\n# \xff", ["2:3: not UTF-8: byte 0xff"]),
    (HEAD + "mode: \0", ["3:7: YAML allows no control character '\\x00'"]),
    (HEAD + "---\nversion: 1", ["3:1: a second document begins here; a policy is one document"]),
    (HEAD + "tls:\n\tkey: /x",
     ["4:1: not YAML: found character that cannot start any token; YAML indents by spaces, this line has a "
      "tab"]),
    ("a: &a [x]\nb: *a",
     ["1:4: anchors and aliases (&name, *name) have no place in a policy; write the value itself"]),
    ("a: !!python/object:os.system x",
     ["1:4: tags (!name) have no place in a policy; write the plain value"]),
    ("[" * 50_000, ["1:7: nested deeper than any policy is"]),
    ("{" * 50_000, ["1:7: nested deeper than any policy is"]),
    ("- " * 5_000, ["1:13: nested deeper than any policy is"]),
    ("a: [x,\n" + "[" * 5_000 + "\n]", ["2:5: nested deeper than any policy is"]),
    ("a: &a " + "[" * 5_000,
     ["1:4: anchors and aliases (&name, *name) have no place in a policy; write the value itself"]),
    ("a:\n" + "[" * 1_500, ["2:1026: not YAML: could not find expected ':'"]),
    ("a:\n" + "[" * 1_010 + "\n", ["3:1: not YAML: could not find expected ':'"]),
    ("#" * 300_000, ["1:1: is larger than 256 KiB"]),
)

DURATIONS: Rows = (
    ("100ms", 0.1), ("5min", 300), ("1h", 3600), ("1h 30min", 5400), ("1h30m", 5400), ("1.5s", 1.5),
    ("2 d", 172800), ("5", None), ("", None), ("ms", None), ("5 parsecs", None), ("-5s", None),
    ("5s x", None),
)

WINDOWS_REFUSED: Rows = (
    ("Sat", "HH:MM-HH:MM"),
    ("Sat 2:00-5:00 UTC", "HH:MM-HH:MM"),
    ("Sa 02:00-05:00 UTC", "unknown day"),
    ("02:00-05:00", "time zone"),
    ("02:00-25:00 UTC", "no such time"),
    ("02:60-05:00 UTC", "no such time"),
    ("02:00-02:00 UTC", "ends when it starts"),
    ("02:00-05:00 Europe/Berln", "knows no time zone 'Europe/Berln'"),
    ("02:00-05:00 ../../etc/passwd", "knows no time zone"),
)
