"""Policies and values with what the reader makes of them, for the tests of the reader and of the JSON Schema."""

from __future__ import annotations

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

FD_SOCKETS = (
    ("sockets: [fd://]", ["unix:///run/docker.sock none 2:11"]),
    ("sockets: [tcp://10.0.0.5]", ["tcp://10.0.0.5:2375 mutual 2:11"]),
    ("sockets: [{address: tcp://10.0.0.5, tls: none}]", ["tcp://10.0.0.5:2375 none 2:21"]),
    ("sockets: [fd://]\nsocket_unit: {listen: [/run/docker.sock, 2376]}",
     ["unix:///run/docker.sock none 3:24", "tcp://[::]:2376 mutual 3:42"]),
    ("sockets: [{address: fd://, tls: server}]\nsocket_unit: {listen: ['[::1]:2376']}",
     ["tcp://[::1]:2376 server 3:24"]),
    ("sockets: [unix://]\nsocket_unit: {listen: [2375]}", ["unix:///var/run/docker.sock none 2:11"]),
)
"""Policies with `sockets`, and what `declared_bindings` returns for them: address, TLS, location."""

ADDRESSES = (
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
"""Addresses, and how they are normalised."""

INVALID_ADDRESSES = (
    ("0.0.0.0:2375", "missing scheme; dockerd would use tcp://0.0.0.0:2375"),
    ("/run/docker.sock", "missing scheme; did you mean 'unix:///run/docker.sock'?"),
    ("@docker", "missing scheme; did you mean 'unix://@docker'?"),
    ("unix:/run/docker.sock", "missing scheme; did you mean 'unix:///run/docker.sock'?"),
    ("run/docker.sock", "missing scheme; did you mean 'unix:///run/docker.sock'?"),
    ("fd:/", "missing scheme; did you mean 'fd://'?"),
    ("fd", "missing scheme; did you mean 'fd://'?"),
    ("TCP://1.2.3.4:1", "unsupported scheme 'TCP'"),
    ("http://1.2.3.4", "unsupported scheme 'http'"),
    ("fd://3", "fd://NUMBER"),
    ("unix://run/docker.sock", "the path must begin with /; did you mean 'unix:///run/docker.sock'?"),
    ("unix:///run/docker sock", "must not contain blanks"),
    ("unix:///" + "x" * 107, "at most 107 bytes"),
    ("unix://@", "the name of the socket is missing"),
    ("tcp://1.2.3.4:0", "ports are 1 to 65535"),
    ("tcp://1.2.3.4:65536", "ports are 1 to 65535"),
    ("tcp://1.2.3.4:02375", "ports are 1 to 65535"),
    ("tcp://1.2.3.4:٢", "ports are 1 to 65535"),
    ("tcp://1.2.3.4:2375/", "without '/'"),
    ("tcp://user@1.2.3.4:2375", "without '@'"),
    ("tcp://::1:2375", "[ADDRESS]:PORT"),
    ("tcp://[::1%eth0]:2375", "zone"),
    ("tcp://[::ffff:0.0.0.0]:2375", "use the IPv4 address 0.0.0.0"),
    ("tcp://docker.example.org:2376", "is not an IP address"),
    ("tcp://127.1:2375", "is not an IP address"),
)
"""Invalid addresses, and a part of the error message."""

LISTEN_STREAMS: tuple[tuple[str, str | None], ...] = (
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
"""ListenStream= addresses, and the same in dockerd's syntax; None: invalid."""

ERRORS: tuple[tuple[str | bytes, list[str]], ...] = (
    ("", ["1:1: empty file; expected a mapping that begins with 'version: 1'"]),
    ("- fd://", ["1:1: expected the policy to be a mapping with the keys version, mode, sockets, socket_unit, tls, "
                 "correct, watch, waive; found a list"]),
    ("sockets: [fd://]", ["1:1: missing key 'version' in the policy"]),
    ("version: 1\nhosts: [fd://]",
     ["1:1: missing key 'sockets' in the policy", "2:1: unknown key 'hosts' in the policy; did you mean 'sockets'?"]),
    (HEAD + "watch: {q: 1}", ["3:9: unknown key 'q' in watch; valid keys: settle, resync"]),
    (HEAD + "tls: {TLSCACert: /ca.pem}", ["3:7: unknown key 'TLSCACert' in tls; did you mean 'ca'?"]),
    ("version: 1\nsockets: [/run/docker.sock]",
     ["2:11: expected an address: fd://, unix:///PATH or tcp://IP:PORT; found '/run/docker.sock': missing scheme; did "
      "you mean 'unix:///run/docker.sock'?"]),
    ("version: 1\nsockets: [{address: tcp://10.0.0.5, tls: verify}]",
     ["2:42: expected one of mutual, server, none; found 'verify'; did you mean 'mutual'?"]),
    ("version: 1\nsockets: [{address: tcp://10.0.0.5, tls: serve}]",
     ["2:42: expected one of mutual, server, none; found 'serve'"]),
    (HEAD + "correct: {restart: alway}", ["3:20: expected one of live-restore, always, never; found 'alway'"]),
    (HEAD + "socket_unit: {listen: ['unix:///run/docker.sock']}",
     ["2:11: fd:// stands for socket_unit.listen, which is empty",
      "3:24: expected a ListenStream= address: /PATH, @NAME, PORT, IPv4:PORT or [IPv6]:PORT; found "
      "'unix:///run/docker.sock': ListenStream= addresses have no scheme; did you mean '/run/docker.sock'?"]),
    ("version: '1'\nsockets: [fd://]",
     ["1:10: expected 1, the only version of this format; found '1'"]),
    (HEAD + "rootlets: {}",
     ["3:1: unknown key 'rootlets' in the policy; valid keys: version, mode, sockets, socket_unit, tls, correct, "
      "watch, waive"]),
    (HEAD + "sokets: []",
     ["3:1: unknown key 'sokets' in the policy; did you mean 'sockets'?"]),
    (HEAD + "mode: enforce\nmode: observe",
     ["4:1: duplicate key 'mode', first used in line 3"]),
    (HEAD + "mode: enforced",
     ["3:7: expected one of observe, enforce; found 'enforced'; did you mean 'enforce'?"]),
    (HEAD + "mode: [enforce]", ["3:7: expected one of observe, enforce; found a list"]),
    (HEAD + "mode:", ["3:6: expected one of observe, enforce; found nothing"]),
    (HEAD + "watch: {settle: 5, resync: 100ms}",
     ["3:17: expected a duration such as 100ms, 5min or 1h; found the number 5: missing unit, such as ms, s, min or h",
      "3:28: expected a duration such as 100ms, 5min or 1h; found '100ms': must be from 1s to 1d"]),
    (HEAD + "correct: {budget: 0/1h}",
     ["3:19: expected a budget such as 3/1h (three restarts an hour); found '0/1h': the count must be at least 1; use "
      "'restart: never' to forbid restarts"]),
    (HEAD + "correct: {fleet: {lock: etc, group: a/b, endpoints: [http://etcd1:2379, https://u:p@etcd1, etcd1], "
     "slots: 0}}",
     ["3:25: expected one of etcd, fleetlock; found 'etc'; did you mean 'etcd'?",
      "3:37: expected a group of 1 to 64 letters, digits, dots and hyphens; found 'a/b'",
      "3:54: expected a URL such as https://etcd1:2379; found 'http://etcd1:2379': http:// is allowed to a loopback "
      "address only: anyone on the way could grant or take slots; use 'https://etcd1:2379'",
      "3:73: expected a URL such as https://etcd1:2379; found 'https://u:p@etcd1': only https://HOST:PORT/PATH is "
      "allowed, without a user, a query or a fragment",
      "3:92: expected a URL such as https://etcd1:2379; found 'etcd1': only https://HOST:PORT/PATH is allowed, without "
      "a user, a query or a fragment",
      "3:107: expected a number from 1 to 999; found the number 0"]),
    (HEAD + "correct: {fleet: {endpoints: [], tls: {cert: /c}}}",
     ["3:18: missing key 'group' in correct.fleet", "3:18: missing key 'lock' in correct.fleet",
      "3:30: expected 1 to 10 URLs; found 0", "3:46: cert needs key in correct.fleet.tls"]),
    (HEAD + "correct: {fleet: {lock: fleetlock, endpoints: [https://a], group: x, slots: 2, lease: 1min}}",
     ["3:77: slots has no effect with lock: fleetlock, where the lock service decides; remove slots",
      "3:87: lease has no effect with lock: fleetlock, where the lock service decides; remove lease"]),
    (HEAD + "correct: {fleet: {lock: etcd, endpoints: [https://a], group: x, unreachable: proceeed, lease: 5s}}",
     ["3:78: expected one of hold, proceed; found 'proceeed'",
      "3:95: expected a duration such as 100ms, 5min or 1h; found '5s': must be from 30s to 1h"]),
    (HEAD + "correct:\n  contain: maybe", ["4:12: expected true or false; found 'maybe'"]),
    (HEAD + "tls: {key: key.pem}",
     ["3:12: expected an absolute path; found 'key.pem': must begin with /"]),
    (HEAD + "waive:\n  - rule: DG1\n    until: soon",
     ["4:5: missing key 'reason' in an item of waive",
      "4:11: expected a rule code such as DG103; found 'DG1'",
      "5:12: expected a date such as 2027-03-31; found 'soon': dates are written YYYY-MM-DD"]),
    ("version: 1\nsockets: fd://", ["2:10: expected sockets to be a list; found 'fd://'"]),
    ("version: 1\nsockets: []",
     ["2:10: expected at least one address: with an empty list dockerd uses its default"]),
    ("version: 1\nsockets: [fd://, unix:///var/run/docker.sock]",
     ["2:18: unix:///var/run/docker.sock is already declared in line 2"]),
    ("version: 1\nsockets: [fd://]\nsocket_unit: {listen: []}",
     ["2:11: fd:// stands for socket_unit.listen, which is empty"]),
    ("version: 1\nsockets: [tcp://0.0.0.0:2376, 'tcp://[::1]:2376']",
     ["2:31: tcp://0.0.0.0:2376 in line 2 already binds this port on every address"]),
    ("version: 1\nsockets:\n- tcp://10.0.0.1:2376\n- {address: tcp://127.0.0.1:2375, tls: none}",
     ["4:13: tls is none here and mutual for tcp://10.0.0.1:2376 in line 3: dockerd has a single TLS setting for all "
      "TCP sockets"]),
    ("version: 1\nsockets:\n- {address: fd://, tls: none}\n- tcp://10.0.0.1:2376\n"
     "socket_unit: {listen: [2375]}",
     ["4:3: tls is mutual here and none for tcp://[::]:2375 in line 5: dockerd has a single TLS setting for all "
      "TCP sockets"]),
    ("version: 1\nsockets: [{address: unix://, tls: mutual}]",
     ["2:35: tls applies to TCP only, and access to a UNIX socket is controlled by its file mode; remove tls"]),
    ("version: 1\nsockets: [{address: fd://, tls: mutual}]",
     ["2:33: tls applies to TCP only, and socket_unit.listen has no TCP address; remove tls"]),
    (b"version: 1\n# \xff", ["2:3: not UTF-8: byte 0xff"]),
    (HEAD + "mode: \0", ["3:7: control character '\\x00' is not allowed in YAML"]),
    (HEAD + "---\nversion: 1", ["3:1: second YAML document; a policy is a single document"]),
    (HEAD + "tls:\n\tkey: /x",
     ["4:1: not YAML: found character that cannot start any token; this line contains a tab, YAML indents with "
      "spaces"]),
    ("a: &a [x]\nb: *a",
     ["1:4: anchors and aliases (&name, *name) are not allowed in a policy; write the value itself"]),
    ("a: !!python/object:os.system x",
     ["1:4: tags (!name) are not allowed in a policy; write the plain value"]),
    ("[" * 50_000, ["1:7: nested more than 6 levels deep"]),
    ("{" * 50_000, ["1:7: nested more than 6 levels deep"]),
    ("- " * 50_000, ["1:13: nested more than 6 levels deep"]),
    ("a: " + "[{b: " * 20_000, ["1:15: nested more than 6 levels deep"]),
    ("a: [x,\n" + "[" * 5_000 + "\n]", ["2:5: nested more than 6 levels deep"]),
    ("a: &a " + "[" * 5_000,
     ["1:4: anchors and aliases (&name, *name) are not allowed in a policy; write the value itself"]),
    ("a:\n" + "[" * 1_500, ["2:1026: not YAML: could not find expected ':'"]),
    ("a:\n" + "[" * 1_010 + "\n", ["3:1: not YAML: could not find expected ':'"]),
    ("#" * 300_000, ["1:1: larger than 256 KiB"]),
)
"""Policies, and their errors after the name of the file."""

DURATIONS: tuple[tuple[str, float | None], ...] = (
    ("100ms", 0.1), ("5min", 300), ("1h", 3600), ("1h 30min", 5400), ("1h30m", 5400), ("1.5s", 1.5),
    ("2 d", 172800), ("5", None), ("", None), ("ms", None), ("5 parsecs", None), ("-5s", None),
    ("5s x", None),
)
"""Durations in seconds; None: invalid."""

INVALID_WINDOWS = (
    ("Sat", "HH:MM-HH:MM"),
    ("Sat 2:00-5:00 UTC", "HH:MM-HH:MM"),
    ("Sa 02:00-05:00 UTC", "unknown day"),
    ("02:00-05:00", "time zone"),
    ("02:00-25:00 UTC", "invalid time of day"),
    ("02:60-05:00 UTC", "invalid time of day"),
    ("02:00-02:00 UTC", "ends when it starts"),
    ("02:00-05:00 Europe/Berln", "no time zone 'Europe/Berln' on this host"),
    ("02:00-05:00 ../../etc/passwd", "no time zone"),
)
"""Invalid windows, and a part of the error message."""
