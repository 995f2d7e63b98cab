"""Finds dockerd and its arguments in a command line.

Programs that execute another one (env, nice, `sh -c`) are evaluated as far as their arguments allow. If they
do not, the result has `certain=False`, and only the running daemon shows what was executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dockerd_guard.dockerd.flags import FlagWord, parse
from dockerd_guard.dockerd.version import Version
from dockerd_guard.rootfs import Unreadable

DAEMON_COMMAND_UNTIL = Version(17, 12)
"""This version removed `docker daemon` (docker/cli docs/deprecated.md)."""

DAEMON_FLAG_UNTIL = Version(1, 13)
"""This version removed `docker -d`."""

ROOTLESS_QUOTES_SINCE = Version(23, 0, 4)
"""Before this version dockerd-rootless.sh ended in `exec dockerd $@`, which splits arguments at blanks (moby#45325)."""


class Program(NamedTuple):
    """The program that a command line executes.

    `words` are dockerd's arguments without argv[0], `environ` is its environment. `reason` is why dockerd is not
    started. `certain` is false if the text is not sufficient to determine this. `is_rootless`: inside RootlessKit.
    """

    words: tuple[FlagWord, ...] = ()
    environ: Mapping[str, str] = {}
    certain: bool = True
    reason: str | None = None
    is_rootless: bool = False


class _Wrapper(NamedTuple):
    """Syntax of a program that executes another one.

    `with_value` are the letters of its options that take a value, `operands` the number of operands before the
    command. A program that `forks` executes the command with another process ID than the one that
    systemd passes sockets to.
    """

    with_value: str = ""
    long_with_value: frozenset[str] = frozenset()
    operands: int = 0
    changes_namespaces: bool = False
    forks: bool = False


_DAEMON = r"dockerd(-(current|latest|ce|ee|dev|[0-9][0-9.]*))?"
_CLIENT = r"docker(\.io|-(current|latest|ce|ee|[0-9][0-9.]*))?"
_INTERPRETER = r"busybox|(python|perl|ruby|node)[0-9.]*"
_SHELLS = frozenset(("sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"))
_WRAPPERS = {
    "nice": _Wrapper("n", frozenset(("adjustment",))),
    "ionice": _Wrapper("cn", frozenset(("class", "classdata"))),
    "nohup": _Wrapper(),
    "setsid": _Wrapper(forks=True),  # setsid(1) forks if it is a process group leader, as a service's main process is
    "stdbuf": _Wrapper("ioe", frozenset(("input", "output", "error"))),
    "chrt": _Wrapper("TPD", frozenset(("sched-runtime", "sched-period", "sched-deadline")), 1),
    "taskset": _Wrapper("", frozenset(), 1),
    "timeout": _Wrapper("ks", frozenset(("kill-after", "signal")), 1, forks=True),
    "systemd-cat": _Wrapper("tp", frozenset(("identifier", "priority", "stderr-priority"))),
    "sudo": _Wrapper("ugpCcrtTRDh", frozenset(("user", "group", "chdir", "role", "type", "host")), forks=True),
    "catchsegv": _Wrapper(forks=True),
    "numactl": _Wrapper("iNCmpP", frozenset(("interleave", "membind", "cpunodebind", "physcpubind"))),
    # These change the meaning of an address: another network namespace or root directory.
    "chroot": _Wrapper("", frozenset(("groups", "userspec")), 1, True),
    "nsenter": _Wrapper("tSGW", frozenset(("target", "setuid", "setgid")), 0, True),
    "unshare": _Wrapper("RwSG", frozenset(("root", "wd", "setuid", "setgid")), 0, True),
}
_ASSIGNMENT = r"[A-Za-z_][A-Za-z0-9_]*="
_MAX_LAYERS = 8
_MAX_SCRIPT_BYTES = 64 * 1024
"""Longer scripts are not evaluated."""


def is_dockerd(path: str) -> bool:
    """Whether a path has the name of a dockerd executable."""
    return re.fullmatch(_DAEMON, path.rpartition("/")[2]) is not None


def is_wrapper(path: str) -> bool:
    """Whether a path has the name of a program that executes others: a shell, an interpreter, or such as timeout(1)."""
    name = path.rpartition("/")[2]
    return name in _SHELLS or name in _WRAPPERS or re.fullmatch(_INTERPRETER, name) is not None


def program_of(argv: tuple[str, ...], environ: Mapping[str, str], version: Version | None,
               read: Callable[[str], bytes] | None = None) -> Program:
    """Return the program that argv, argv[0] included, executes. `version` is None if unknown.

    `read` returns the content of a file. With it a program that is a shell script is evaluated, too.
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
            words, environ, is_certain = _env(words, environ)
        elif name in _SHELLS:
            from dockerd_guard.dockerd.shell import shell_command  # rarely needed
            words, environ, is_certain = shell_command(words, environ)
        elif name in _WRAPPERS:
            words, is_certain = _unwrap(words, _WRAPPERS[name])
            if _WRAPPERS[name].forks:
                environ = {key: value for key, value in environ.items() if key != "LISTEN_FDS"}
        else:
            path, words, environ, is_certain = words[0].text, *_script(words, environ, read)
            if not words:
                return Program((), environ, False, f"cannot determine from the files what {path} runs")
        certain = certain and is_certain
    return Program((), environ, False, "cannot determine from the files which program runs")


def _script(words: tuple[FlagWord, ...], environ: Mapping[str, str],
            read: Callable[[str], bytes] | None) -> tuple[tuple[FlagWord, ...], Mapping[str, str], bool]:
    """Return the command that a shell script executes; an empty one for any other program."""
    try:
        content = read(words[0].text) if read is not None and words[0].text.startswith("/") else b""
    except (FileNotFoundError, Unreadable):
        content = b""
    interpreter = re.match(rb"#!\s*(?:/\S*/env\s+)?\S*?([a-z]+)(?:\s|$)", content[:256])
    if interpreter is None or interpreter[1].decode() not in _SHELLS or len(content) > _MAX_SCRIPT_BYTES:
        return (), environ, False
    from dockerd_guard.dockerd.shell import script_command
    # Its words are in no argument. Their location is that of the script's name.
    script = FlagWord(content.decode("utf-8", "surrogateescape"), words[0].argument)
    command, changed, is_certain = script_command(script, words, environ, "always")
    return tuple(word if word in words else word._replace(offset=0) for word in command), changed, is_certain


def _rootless(
    words: tuple[FlagWord, ...], environ: Mapping[str, str], version: Version | None, certain: bool
) -> Program:
    """contrib/dockerd-rootless.sh, which ends in `exec dockerd "$@"` inside RootlessKit."""
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
    # rootlesskit sets this for its child. Only its presence matters.
    inside = {**environ, "ROOTLESSKIT_STATE_DIR": environ.get("XDG_RUNTIME_DIR", "")}
    return Program(words, inside, certain, reason, is_rootless=True)


def _client(words: tuple[FlagWord, ...], environ: Mapping[str, str], version: Version | None,
            certain: bool) -> Program:
    """`docker daemon` and `docker -d`, with options before and after."""
    options = parse(tuple(word._replace(text="--daemon") if word.text == "-d" else word for word in words[1:]),
                  None, stop=True)
    # `-d` and `--daemon` are not flags of dockerd. Find them before the first positional argument.
    for place, word in enumerate(words[1:], 1):
        if word.text in ("-d", "--daemon", "--daemon=true"):
            return Program(words[1:place] + words[place + 1:], environ, certain,
                           _removed_error("unknown shorthand flag: 'd' in -d", version, DAEMON_FLAG_UNTIL))
        if options.positionals and word == options.positionals[0]:
            break
    if options.positionals and options.positionals[0].text == "daemon":
        place = words.index(options.positionals[0])
        return Program(words[1:place] + words[place + 1:], environ, certain,
                       _removed_error("docker: 'daemon' is not a docker command.", version, DAEMON_COMMAND_UNTIL))
    return Program(words[1:], environ, certain,
                   "this is the docker client without a subcommand: it starts no daemon"
                   if not options.positionals else "this is the docker client with a subcommand: it starts no daemon")


def _removed_error(message: str, version: Version | None, until: Version) -> str | None:
    return message if version is not None and version >= until else None


def _env(words: tuple[FlagWord, ...],
         environ: Mapping[str, str]) -> tuple[tuple[FlagWord, ...], Mapping[str, str], bool]:
    """Evaluate env(1). Returns the command, its environment, and whether this is certain."""
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
            # -S splits its argument by its own rules.
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
    return words[at + wrapper.operands:], not wrapper.changes_namespaces
