"""Programs that listen on TCP and connect to the API socket, and clients, filters and servers that are like them."""

from __future__ import annotations

import pytest

from dockerd_guard.observe.socket_programs import first_relay
from tests.support.cpu_time import check_cpu_time

SOCKET = "/var/run/docker.sock"
CONNECT = f's = socket.socket(socket.AF_UNIX)\ns.connect("{SOCKET}")\n'
ASYNC = f'a, b = await asyncio.open_unix_connection("{SOCKET}")\n'
HTTP = f'class C(http.client.HTTPConnection):\n    def connect(self):\n        self.sock.connect("{SOCKET}")\n'

RELAYS: dict[str, str] = {
    "Python: sockets": f'l = socket.socket()\nl.bind(("0.0.0.0", 4243))\nl.listen()\nc, _ = l.accept()\n{CONNECT}',
    "Python: a pair of variables": f"l.bind((HOST, PORT))\nl.listen(5)\n{CONNECT}",
    "Python: a variable with the path": f'P = "{SOCKET}"\nl = socket.create_server(("", 4243))\ns.connect(P)\n',
    "Python: a path from the environment": (
        f'P = os.environ.get("P", "{SOCKET}")\nl = socket.create_server(("", 4243))\ns.connect(P)\n'),
    "Python: a parameter": f'def f(self, path: str = "{SOCKET}"):\n  s.connect(path)\nTCPServer(("", 80), H)\n',
    "Python: asyncio": f"{ASYNC}await asyncio.start_server(proxy, self.host, self.port)\n",
    "Python: a loop": f'await loop.create_unix_connection(P, "{SOCKET}")\nawait loop.create_server(P, "0.0.0.0", 80)\n',
    "Python: socketserver": f'{CONNECT}socketserver.ThreadingTCPServer(("0.0.0.0", 4243), Handler)\n',
    "Python: gevent": f"{CONNECT}StreamServer(('0.0.0.0', 4243), forward)\n",
    "Python: eventlet": f"listener = eventlet.listen(('0.0.0.0', 7000))\n{CONNECT}",
    "Python: twisted": f'endpoints.clientFromString(reactor, "unix:{SOCKET}")\nreactor.listenTCP(4243, F())\n',
    "Python: http.server": (
        f'{HTTP}c.request(self.command, self.path)\nThreadingHTTPServer(("0.0.0.0", 4243), H)\n'),
    "Python: the path of each GET": f'{HTTP}c.request("GET", self.path)\nHTTPServer(("", 4243), H)\n',
    "Python: aiohttp": (
        f'UnixConnector(path="{SOCKET}")\ns.request(r.method, "http://d" + r.path_qs)\nweb.run_app(app, port=4243)\n'),
    "Python: Flask": (
        's.request(request.method, "http+unix://%2Fvar%2Frun%2Fdocker.sock/" + p)\napp.run(host="0.0.0.0")\n'),
    "Python: WSGI": f'{HTTP}def application(env, s):\n  c.request(env["REQUEST_METHOD"], env["PATH_INFO"])\n',
    "Perl: modules": (
        "$l = IO::Socket::INET->new(LocalPort => 4243, Listen => 5);\n"
        f"$u = IO::Socket::UNIX->new(Peer => '{SOCKET}');\n"),
    "Perl: calls": (
        f"bind(S, sockaddr_in(4243, INADDR_ANY)); listen(S, 5);\nconnect(U, sockaddr_un('{SOCKET}'));\n"),
    "Ruby": f"s = TCPServer.new('0.0.0.0', 4243)\nu = UNIXSocket.new('{SOCKET}')\n",
    "Ruby: a loop": f"Socket.tcp_server_loop(4243) {{ |c| Socket.unix('{SOCKET}') }}\n",
    "Lua": f'local s = socket.bind("*", 4243)\nu:connect("{SOCKET}")\n',
    "Node.js": f'node -e \'net.createServer(c => c.pipe(net.connect("{SOCKET}"))).listen(4243)\'\n',
    "one of two listens on all addresses": (
        f'TCPServer(("127.0.0.1", 80), A)\nTCPServer(("", 4243), B)\n{CONNECT}'),
    "Podman": f'{CONNECT.replace("docker.sock", "podman/podman.sock")}socket.create_server(("", 4243))\n',
}

OTHERS: dict[str, str] = {
    "a client": CONNECT,
    "a client of asyncio": ASYNC,
    "a client with HTTP": f'{HTTP}c.request("GET", "/info")\n',
    "a client of Ruby": f"s = UNIXSocket.new('{SOCKET}')\ns.write(x)\n",
    "the loopback address": f'socket.create_server(("127.0.0.1", 4243))\n{CONNECT}',
    "the loopback address in a variable": f'HOST = "127.0.0.1"\nl.bind((HOST, 80))\nl.listen()\n{CONNECT}',
    "the loopback address of IPv6": f'asyncio.start_server(f, "::1", 80)\n{ASYNC}',
    "a filter on a UNIX socket": f'l.bind("/run/filter.sock")\nl.listen()\n{CONNECT}',
    "a filter of asyncio": f'{ASYNC}asyncio.start_unix_server(f, "/run/f.sock")\n',
    "an exporter": f'{HTTP}c.request("GET", "/info")\nif self.path == "/metrics":\n  x()\nHTTPServer(("", 80), H)\n',
    "a page with actions": (
        f'{CONNECT}if request.method == "POST":\n  act(name)\napp.run(host="0.0.0.0")\n'),
    "a server that looks whether the socket is there": (
        f'os.path.exists("{SOCKET}")\nHTTPServer(("0.0.0.0", 80), H)\ns.connect(("db", 5432))\n'),
    "a server that lists containers by the library": (
        f'docker.DockerClient(base_url="unix://{SOCKET}")\napp.run(host="0.0.0.0")\n'),
    "an address to connect from": f'l.bind(("0.0.0.0", 0))\n{CONNECT}',
    "a client of TCP of Perl": (
        f"IO::Socket::INET->new(PeerAddr => 'x:80');\nIO::Socket::UNIX->new(Peer => '{SOCKET}');\n"),
    "a server that connects to another socket": (
        f'P = "/run/x.sock"\ns.connect(P)\nTCPServer(("", 80), H)\n# {SOCKET}\n'),
    "a test": f'with raises(E):\n  await conn.open_unix_connection("{SOCKET}")\n',
}


@pytest.mark.parametrize("name", RELAYS)
def test_a_program_that_forwards_is_found(name: str) -> None:
    assert first_relay(RELAYS[name]) is not None


@pytest.mark.parametrize("name", OTHERS)
def test_a_program_that_only_connects_or_only_listens_is_none(name: str) -> None:
    assert first_relay(OTHERS[name]) is None


@pytest.mark.parametrize("text", [
    "connect(", "connect(a,\n", 's = "docker.sock"\n', "TCPServer('127.0.0.1');", "sockaddr_in ", ".bind(",
    "HTTPServer(", 'x="127.0.0.1" ', "IO::Socket::INET->new ", "self.path"])
def test_long_texts_end_soon(text: str) -> None:
    def work() -> None:
        first_relay((CONNECT + text * 300_000)[:1 << 20])

    check_cpu_time(work, 1)
