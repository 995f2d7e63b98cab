"""Programs of Python, Perl, Ruby, Lua and Node.js that accept connections by TCP and connect to the API socket.

What such a program does is not evaluated. One that copies between both is a relay, and so is one that serves HTTP and
passes on the method or the path of a request. Clients only connect, and filters may listen on a UNIX socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

MAX_CALLS = 500
"""Calls that connect or listen, and paths, that are looked at in one text; more of them count as one that is open."""

_ARGUMENTS, _BEFORE = 200, 160
"""Characters after a call, and before a path in its line, that are looked at."""

_SOCKET = r"(?:docker|podman)\.sock\b"
_LOOPBACK = r"[\"'](?:127\.[0-9.]{1,12}|localhost|::1)[\"':]"

# Patterns are compiled where they are first used (re caches them): most trees need none.
_VARIABLE = r"([A-Za-z_]\w{0,60})[ \t]{0,4}(?::[^=\n]{0,20})?=>?(?![=~])"
_CONNECTS = (
    r"\b(?:connect(?:_ex)?|open_unix_connection|create_unix_connection|sockaddr_un|UnixConnector|UNIXClientEndpoint"
    r"|UNIXSocket\.(?:new|open)|Socket\.unix|HTTPUnix\.new|IO::Socket::UNIX->new|(?:create|net\.c)onnect(?:ion)?"
    r"|clientFromString|socketPath|uds)\b|\bhttp\+unix:")
"""What connects to a UNIX socket. Its path follows."""

_LISTENS = (
    r"\b(?P<http>(?:Threading)?HTTPServer|WSGIServer|make_server|run_app|app\.run|uvicorn\.run|def application"
    r"|WEBrick::HTTPServer\.new)\("
    r"|\bIO::Socket::(?P<perl>INET6?|IP)->new\b|\b(?P<packed>sockaddr_in6?)\b|\.(?P<bind>bind)[ \t]{0,4}\("
    r"|\b(?:start_server|create_server|createServer|(?:Threading|Forking)?TCPServer|StreamServer|eventlet\.listen"
    r"|listenTCP|serverFromString|TCP[46]ServerEndpoint|TCPServer\.(?:new|open)|tcp_server_(?:loop|sockets)"
    r"|socket\.bind)[ \t]{0,4}[({]")
"""Calls that listen on TCP. Their addresses follow. Those of http serve what the program makes of a request."""

_PASSES_ON = (
    r"(?:\bself\.command|\b(?:request|req|r)\.(?:request_)?method|\bREQUEST_METHOD[\"']?\]?)[ \t]{0,4},"
    r"|,[ \t]{0,4}(?:self\.path|(?:request|req|r)\.(?:full_path|path_qs|raw_path|rel_url))\b")
"""The method or the path of a request as an argument."""


def first_relay(text: str) -> int | None:
    """Return the offset of the API socket to which a program connects that listens on a TCP address other than the
    loopback address; None if there is none. Linear time."""
    socket = re.search(_SOCKET, text)
    return socket.start() if socket is not None and _connects(text) and listens(text) else None


def _connects(text: str) -> bool:
    names = _variables_with(_SOCKET, text)
    for number, found in enumerate(re.finditer(_CONNECTS, text)):
        arguments = _arguments_after(text, found.end())
        if number >= MAX_CALLS or re.search(_SOCKET, arguments) is not None or _names_any(names, arguments):
            return True
    return False


def listens(text: str) -> bool:
    """Whether a program listens on a TCP address other than the loopback address."""
    local = _variables_with(_LOOPBACK, text)
    passes_on = has_listen = None
    for number, found in enumerate(re.finditer(_LISTENS, text)):
        if number >= MAX_CALLS:
            return True
        arguments = _arguments_after(text, found.end())
        if re.search(_LOOPBACK, arguments) is not None or _names_any(local, arguments):
            continue
        if found["http"] is not None:
            passes_on = re.search(_PASSES_ON, text) is not None if passes_on is None else passes_on
            is_open = passes_on
        elif found["perl"] is not None:
            is_open = "Listen" in arguments
        elif found["packed"] is not None or found["bind"] is not None:
            # A UNIX socket is bound to a string, and a TCP socket to a pair.
            has_listen = re.search(r"\blisten\b", text) is not None if has_listen is None else has_listen
            is_open = has_listen and (found["bind"] is None or arguments.lstrip().startswith("("))
        else:
            is_open = True
        if is_open:
            return True
    return False


def _variables_with(pattern: str, text: str) -> frozenset[str]:
    """The variables to which a line with such a text assigns, or has it as a default."""
    return frozenset(islice(_assigned(pattern, text), MAX_CALLS))


def _assigned(pattern: str, text: str) -> Iterator[str]:
    for found in islice(re.finditer(pattern, text), MAX_CALLS):
        yield from re.findall(_VARIABLE, text[max(0, found.start() - _BEFORE):found.start()].rpartition("\n")[2])


def _arguments_after(text: str, place: int) -> str:
    return re.split(r";|\)[ \t]{0,8}\n|\n[ \t]{0,80}\n", text[place:place + _ARGUMENTS], maxsplit=1)[0]


def _names_any(names: frozenset[str], arguments: str) -> bool:
    return not names.isdisjoint(re.findall(r"[A-Za-z_]\w{0,60}", re.split(r"\n", arguments, maxsplit=1)[0]))
