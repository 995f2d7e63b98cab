"""Which words of a command line are dockerd's own, and whether it is dockerd that runs at all.

Programs that run another one (env, nice, `sh -c`) are seen through as far as their text tells. Where
it does not, the answer is `certain=False`: the running daemon has to be asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dockerd_guard.dockerd.flags import FlagWord, parse
from dockerd_guard.dockerd.version import Version
from dockerd_guard.rootfs import Unreadable

DAEMON_COMMAND_UNTIL = Version(17, 12)
"""`docker daemon` is gone from here on (docker/cli docs/deprecated.md)."""

DAEMON_FLAG_UNTIL = Version(1, 13)
"""`docker -d` likewise."""

ROOTLESS_QUOTES_SINCE = Version(23, 0, 4)
"""Before, dockerd-rootless.sh ended in `exec dockerd $@`: its arguments were split at blanks (moby#45325)."""


class Program(NamedTuple):
    """What is started.

    `words` are dockerd's own, its name not among them; `environ` what it is started with. `reason`
    says why no dockerd comes of it. `certain` is false where the text does not tell.
    """

    words: tuple[FlagWord, ...] = ()
    environ: Mapping[str, str] = {}
    certain: bool = True
    reason: str | None = None
    rootless: bool = False


class _Wrapper(NamedTuple):
    """How a program that runs another takes its own words: letters of options with a value, operands.

    One that `forks` stays, and what it runs has another process ID than systemd passes sockets to.
    """

    with_value: str = ""
    long_with_value: frozenset[str] = frozenset()
    operands: int = 0
    other_world: bool = False
    forks: bool = False


_DAEMON = r"dockerd(-(current|latest|ce|ee|dev|[0-9][0-9.]*))?"
_CLIENT = r"docker(\.io|-(current|latest|ce|ee|[0-9][0-9.]*))?"
_SHELLS = frozenset(("sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"))
_WRAPPERS = {
    "nice": _Wrapper("n", frozenset(("adjustment",))),
    "ionice": _Wrapper("cn", frozenset(("class", "classdata"))),
    "nohup": _Wrapper(),
    "setsid": _Wrapper(forks=True),  # where it leads its process group, as what systemd starts does
    "stdbuf": _Wrapper("ioe", frozenset(("input", "output", "error"))),
    "chrt": _Wrapper("TPD", frozenset(("sched-runtime", "sched-period", "sched-deadline")), 1),
    "taskset": _Wrapper("", frozenset(), 1),
    "timeout": _Wrapper("ks", frozenset(("kill-after", "signal")), 1, forks=True),
    "systemd-cat": _Wrapper("tp", frozenset(("identifier", "priority", "stderr-priority"))),
    "sudo": _Wrapper("ugpCcrtTRDh", frozenset(("user", "group", "chdir", "role", "type", "host")), forks=True),
    "catchsegv": _Wrapper(forks=True),
    "numactl": _Wrapper("iNCmpP", frozenset(("interleave", "membind", "cpunodebind", "physcpubind"))),
    # These change what an address means: another network, other files.
    "chroot": _Wrapper("", frozenset(("groups", "userspec")), 1, True),
    "nsenter": _Wrapper("tSGW", frozenset(("target", "setuid", "setgid")), 0, True),
    "unshare": _Wrapper("RwSG", frozenset(("root", "wd", "setuid", "setgid")), 0, True),
}
_ASSIGNMENT = r"[A-Za-z_][A-Za-z0-9_]*="
_MAX_LAYERS = 8
_MAX_SCRIPT_BYTES = 64 * 1024
"""A script that long does more than start dockerd."""


def is_dockerd(path: str) -> bool:
    """Whether a program of that name is a dockerd."""
    return re.fullmatch(_DAEMON, path.rpartition("/")[2]) is not None


def program_of(argv: tuple[str, ...], environ: Mapping[str, str], version: Version | None,
               read: Callable[[str], bytes] | None = None) -> Program:
    """Look at argv, argv[0] included. `version` is None where it is not known.

    With `read` a program of another name is looked into, in case it is a script that runs dockerd.
    """
    words = tuple(FlagWord(text, index) for index, text in enumerate(argv))
    certain = True
    for _ in range(_MAX_LAYERS):
        if not words:
            break
        name = words[0].text.rpartition("/")[2]
        if name == "dockerd-rootless.sh":
            return _rootless(words[1:], environ, version, certain)
        if is_dockerd(name):
            return Program(words[1:], environ, certain)
        if re.fullmatch(_CLIENT, name):
            return _client(words, environ, version, certain)
        if name == "env":
            words, environ, sure = _env(words, environ)
        elif name in _SHELLS:
            from dockerd_guard.dockerd.shell import shell_command  # few units need it
            words, environ, sure = shell_command(words, environ)
        elif name in _WRAPPERS:
            words, sure = _unwrap(words, _WRAPPERS[name])
            if _WRAPPERS[name].forks:
                environ = {key: value for key, value in environ.items() if key != "LISTEN_FDS"}
        else:
            path, words, environ, sure = words[0].text, *_script(words, environ, read)
            if not words:
                return Program((), environ, False, f"what {path} runs cannot be told from the files")
        certain = certain and sure
    return Program((), environ, False, "what is run cannot be told from the files")


def _script(words: tuple[FlagWord, ...], environ: Mapping[str, str],
            read: Callable[[str], bytes] | None) -> tuple[tuple[FlagWord, ...], Mapping[str, str], bool]:
    """What a shell script of its own file runs; nothing for any other program."""
    try:
        content = read(words[0].text) if read is not None and words[0].text.startswith("/") else b""
    except (FileNotFoundError, Unreadable):
        content = b""
    interpreter = re.match(rb"#!\s*(?:/\S*/env\s+)?\S*?([a-z]+)(?:\s|$)", content)
    if interpreter is None or interpreter[1].decode() not in _SHELLS or len(content) > _MAX_SCRIPT_BYTES:
        return (), environ, False
    from dockerd_guard.dockerd.shell import script_command
    # Its words stand in no argument: they count as where the script is named.
    script = FlagWord(content.decode("utf-8", "surrogateescape"), words[0].argument)
    command, changed, sure = script_command(script, words, environ, "always")
    return tuple(word if word in words else word._replace(offset=0) for word in command), changed, sure


def _rootless(
    words: tuple[FlagWord, ...], environ: Mapping[str, str], version: Version | None, certain: bool
) -> Program:
    """contrib/dockerd-rootless.sh: ends in `exec dockerd "$@"` inside RootlessKit."""
    reason = None
    if words and words[0].text in ("check", "install", "uninstall"):
        reason = f"Did you mean 'dockerd-rootless-setuptool.sh {words[0].text}' ?"
    elif not environ.get("XDG_RUNTIME_DIR"):
        reason = "XDG_RUNTIME_DIR needs to be set and writable"
    elif not environ.get("HOME"):
        reason = "HOME needs to be set and exist."
    elif environ.get("USER", "root") == "root":
        # systemd sets both for any other User= (systemd.exec(5)).
        reason = "This script must be executed as a non-privileged user"
    if version is not None and version < ROOTLESS_QUOTES_SINCE:
        certain = certain and not any(re.search(r"[*?\[]", word.text) for word in words)
        words = tuple(word._replace(text=found[0], offset=word.offset + found.start())
                      for word in words for found in re.finditer(r"[^ \t\n]+", word.text))
    if not is_dockerd(environ.get("DOCKERD") or "dockerd"):
        certain = False
    # Set by rootlesskit for what it runs; only whether it is there matters.
    inside = {**environ, "ROOTLESSKIT_STATE_DIR": environ.get("XDG_RUNTIME_DIR", "")}
    return Program(words, inside, certain, reason, True)


def _client(words: tuple[FlagWord, ...], environ: Mapping[str, str], version: Version | None,
            certain: bool) -> Program:
    """`docker daemon` and `docker -d`, with options on either side."""
    front = parse(tuple(word._replace(text="--daemon") if word.text == "-d" else word for word in words[1:]),
                  None, stop=True)
    # `-d` and `--daemon` are no flags of dockerd's: what stands before is read up to there.
    for place, word in enumerate(words[1:], 1):
        if word.text in ("-d", "--daemon", "--daemon=true"):
            return Program(words[1:place] + words[place + 1:], environ, certain,
                           _gone("unknown shorthand flag: 'd' in -d", version, DAEMON_FLAG_UNTIL))
        if front.positionals and word == front.positionals[0]:
            break
    if front.positionals and front.positionals[0].text == "daemon":
        place = words.index(front.positionals[0])
        return Program(words[1:place] + words[place + 1:], environ, certain,
                       _gone("docker: 'daemon' is not a docker command.", version, DAEMON_COMMAND_UNTIL))
    return Program(words[1:], environ, certain,
                   "the docker client without a sub-command prints its help and exits: no daemon"
                   if not front.positionals else
                   f"this is the docker client, running `docker {front.positionals[0].text}`: no daemon")


def _gone(message: str, version: Version | None, until: Version) -> str | None:
    return message if version is not None and version >= until else None


def _env(words: tuple[FlagWord, ...],
         environ: Mapping[str, str]) -> tuple[tuple[FlagWord, ...], Mapping[str, str], bool]:
    """env(1)."""
    changed = dict(environ)
    at = 1
    while at < len(words):
        text = words[at].text
        if text in ("-i", "-", "--ignore-environment"):
            changed.clear()
        elif text in ("-u", "--unset") and at + 1 < len(words):
            at += 1
            changed.pop(words[at].text, None)
        elif text.startswith("--unset=") or (text.startswith("-u") and len(text) > 2):
            changed.pop(text.partition("=")[2] if text.startswith("--") else text[2:], None)
        elif text in ("-C", "--chdir") and at + 1 < len(words):
            at += 1
        elif text == "--":
            at += 1
            break
        elif text.startswith("-") and text not in ("-v", "--debug"):
            # -S splits its word by rules of its own.
            return (), changed, False
        elif "=" not in text:
            break
        elif not text.startswith("-"):
            name, _, value = text.partition("=")
            changed[name] = value
        at += 1
    while at < len(words) and re.match(_ASSIGNMENT, words[at].text):
        name, _, value = words[at].text.partition("=")
        changed[name] = value
        at += 1
    return words[at:], changed, True


def _unwrap(words: tuple[FlagWord, ...], wrapper: _Wrapper) -> tuple[tuple[FlagWord, ...], bool]:
    at = 1
    while at < len(words) and words[at].text.startswith("-") and words[at].text != "-":
        text = words[at].text
        at += 1
        if text == "--":
            break
        if text.startswith("--"):
            name, equals, _ = text[2:].partition("=")
            at += not equals and name in wrapper.long_with_value
        elif text[-1] in wrapper.with_value:
            at += 1
    return words[at + wrapper.operands:], not wrapper.other_world
