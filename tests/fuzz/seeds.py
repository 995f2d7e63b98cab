"""Seeds of the fuzzers: the corpus and the vectors of tests/data, and those of ../shared if it exists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support import corpus, shared
from tests.support.vectors import data, documents

SERVICE = b"[Unit]\nRequires=docker.socket\n[Service]\nType=notify\nExecStart=/usr/bin/dockerd -H fd:// $OPTIONS\n"
SOCKET = b"[Socket]\nListenStream=/run/docker.sock\nSocketMode=0660\n"
POLICY = (b"version: 1\nmode: enforce\nsockets:\n  - fd://\n  - {address: tcp://127.0.0.1:2376, tls: mutual}\n"
          b"socket_unit: {listen: [/run/docker.sock]}\nwatch: {settle: 1s}\ncorrect:\n  budget: 3/1h\n"
          b"  window: Sat,Sun 02:00-05:00 UTC\nwaive: [{rule: DG103, reason: x, until: 2027-03-31}]\n")
DAEMON_JSON = b'{"hosts": ["fd://", "tcp://[::1]:2375"], "tls": true, "log-opts": {"max-size": "10m"}, "mtu": 1e3}'
ENVIRONMENT = b"# as Debian has it\nOPTIONS='-H tcp://0.0.0.0:2375' \"--tls\"\\\n -D\n"


def _encoded(tokens: tuple[str, ...], *more: bytes) -> tuple[bytes, ...]:
    return (*(token.encode() for token in tokens), *more)


UNIT_TOKENS = _encoded((
    "[Service]\n", "[Socket]\n", "[Unit]\n", "[Install]\n", "[X-Y]\n", "\n", "\\\n", "\r", "\0", "=", " ",
    "\t", ";", "#",
    '"', "'", "\\", "%", "%%", "%n", "%H", "%i", "$", "$$", "$X", "${X}", "${", "}", "\\x41", "\\u00e9", "\\U0001f600",
    "\\101", "\\s", "\ufeff", "ExecStart=", "ExecStart=-", "ExecStart=@", "ExecStart=:", "ExecStart=|",
    "ExecStart=!!",
    "ExecStartPre=", "/usr/bin/dockerd ", "dockerd ", "-H ", "--host=", "fd://", "fd://3", "unix:///run/docker.sock",
    "tcp://0.0.0.0:2375", "tcp://[::1%25lo]:1", "--tlsverify", "--tls=false", "-D", "/bin/sh -c ", "/usr/bin/env ",
    "Type=oneshot\n", "Type=", "Environment=", "EnvironmentFile=", "EnvironmentFile=-", "PassEnvironment=",
    "UnsetEnvironment=", "Sockets=", "Requires=", "ListenStream=", "ListenDatagram=", "ListenFIFO=",
    "Service=", "Accept=yes\n",
    "SocketMode=", "BindIPv6Only=", "User=", "WorkingDirectory=", "/etc/default/docker\n", "/etc/*/[a-z]*\n",
    "X=1", " -- ",
), b"\xff", b"\xc3", b"\xef\xbf\xbf")
JSON_TOKENS = _encoded((
    "{", "}", "[", "]", ":", ",", '"', "\\", " ", "\n", "\t", "null", "true", "false", "0", "-", "1e5", ".5",
    "NaN", "1E400",
    "\\u", "\\ud800", "\\udc00", "\\u0000", '"hosts"', '"Hosts"', '"tls"', '"tlsverify"', '"log-opts"', '"runtimes"',
    '"default-ulimits"', '"default-address-pools"', '"labels"', '"mtu"', '"insecure-registries"', '"registry-mirrors"',
    '"builder"', '"features"', '"fd://"', '"tcp://0.0.0.0:2375"', '"":', "\ufeff", "\u2028",
), b"\xff\xfe", b"\xfe\xff", b"\xed\xa0\x80")
YAML_TOKENS = _encoded((
    "\n", "  ", "- ", ": ", "{", "}", "[", "]", ",", "#", "|\n", ">\n", "'", '"', "\\", "&a ", "*a",
    "!!str ", "---\n", "...\n",
    "? ", "<<", "%YAML", "\t", "~", "null", "true", "1", "version: 1\n", "mode: ", "sockets:", "address: ",
    "tls: ", "mutual",
    "socket_unit:", "listen:", "correct:", "restart:", "window: ", "budget: ", "3/1h", "foreign_files:",
    "contain:", "watch:",
    "settle: ", "resync:", "waive:", "rule:", "reason:", "until: ", "fd://", "unix:///run/x", "tcp://", "[::1]:2375",
    "02:00-05:00", "UTC", "\ufeff", "\x85",
), b"\xff", b"\x00")
WORD_TOKENS = _encoded((
    "\0", " ", "-", "--", "=", ":", "/", "//", "://", "[", "]", "%", "%25", "@", "?", "#", "-H", "--host",
    "-D", "-l", "--tls",
    "--tlsverify", "--tlscacert", "--config-file", "--add-runtime", "--log-opt", "--label", "--mtu",
    "--insecure-registry",
    "--registry-mirror", "--default-ulimit", "--storage-opt", "--dns", "--bip", "fd://", "tcp://", "unix://",
    "npipe://",
    "vsock:", "0.0.0.0", "localhost", "[::]", "[::ffff:1.2.3.4]", ":2375", "2375", "0x947",
    "99999999999999999999", "1_0", "true",
    "/usr/bin/dockerd", "/bin/sh\0-c\0", "env", "nice\0-n\0", "docker\0daemon", "exec ", "A=b ", "$A",
    "${A}", "'", '"', ";",
    "&&", "|", ">", "\\", "\n", "\r", "1.5GB", "nofile=1:2",
), b"\xff", b"\xc3")
PEM_TOKENS = (
    b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"-----BEGIN RSA PRIVATE KEY-----\n",
    b"-----END RSA PRIVATE KEY-----\n", b"-----BEGIN PRIVATE KEY-----\n", b"-----END PRIVATE KEY-----\n",
    b"-----BEGIN EC PRIVATE KEY-----\n", b"-----END EC PRIVATE KEY-----\n", b"-----BEGIN ", b"-----", b"\n", b" ", b"=",
    b"Proc-Type: 4,ENCRYPTED\n", b"MII", b"AAAA", b"MAA=",
)


def roots() -> list[Path]:
    """Return the root directories of the corpus."""
    return [*corpus.roots(), *shared.corpus()]


@cache
def published() -> tuple[tuple[str, bytes], ...]:
    """Return all files of the corpus as (path inside the root, content)."""
    return tuple((f"/{path.relative_to(root)}", path.read_bytes())
                 for root in roots() for path in sorted(root.rglob("*"))
                 if path.is_file() and not path.is_symlink() and path.name != "case.json")


def units() -> tuple[bytes, ...]:
    """Return unit files and drop-ins."""
    return (SERVICE, SOCKET, *(content for path, content in published() if "/systemd/" in path))


def environments() -> tuple[bytes, ...]:
    """Return environment files."""
    return (ENVIRONMENT, *(content for path, content in published() if "/systemd/" not in path and "json" not in path),
            *(data(vector["input"]) for document in documents("systemd") if document.topic == "environment_file"
              for vector in document.vectors),
            *(text.encode() for text in _vectors("systemd", "content")))


def daemon_jsons() -> tuple[bytes, ...]:
    """Return daemon.json files."""
    return (DAEMON_JSON, *(content for path, content in published() if path.endswith(".json")),
            *(text.encode() for text in _vectors("dockerd", "daemon_json")))


def values() -> tuple[bytes, ...]:
    """Return values of unit settings."""
    return (b'-a "b c" \\x41 $X ${Y} %n',
            *(text.encode() for key in ("input", "rvalue") for text in _vectors("systemd", key)))


def addresses() -> tuple[bytes, ...]:
    """Return values of -H."""
    return (b"tcp://0.0.0.0:2375", *(text.encode() for text in _vectors("dockerd", "input")),
            *(vector["argv"][-1].encode() for document in documents("dockerd") if document.topic == "hosts"
              for vector in document.vectors))


def command_lines() -> tuple[bytes, ...]:
    """Return command lines, with NUL between the words."""
    return (b"/usr/bin/dockerd\0-H\0fd://\0--tls", b"/bin/sh\0-c\0exec dockerd -DH=tcp://[::1]:1 $A",
            *(b"dockerd\0" + text.encode() for text in _vectors("dockerd", "argv")))


def _vectors(name: str, key: str) -> Iterator[str]:
    """Yield every string, or list of strings joined by NUL, under this key, at any depth."""
    todo: list[object] = [document.value for document in documents(name)]
    if shared.IS_THERE:
        todo.append(shared.vectors(name))
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            value = node.get(key)
            if isinstance(value, str):
                yield value
            elif isinstance(value, list) and all(isinstance(item, str) for item in value):
                yield "\0".join(value)
            elif isinstance(value, dict):
                yield json.dumps(value)
            todo += node.values()
        elif isinstance(node, list):
            todo += node
