"""The changes on disk that make the host comply with the policy. Pure.

Our own files depend only on the other files and the policy. The host is read without them: if it complies,
they should not exist; if not, they contain what makes it comply. The result is checked by reading the host
again with the changes applied in memory.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from dockerd_guard.dockerd.config import without_key
from dockerd_guard.dockerd.flags import Flag
from dockerd_guard.model.address import Tls, Via, canonical
from dockerd_guard.model.finding import Finding
from dockerd_guard.model.names import BEFORE_OURS, DROPIN_NAME, SAVED_SUFFIX, SERVICE, SOCKET, UNITS
from dockerd_guard.observe.configured import main_command, passed_by
from dockerd_guard.observe.observation import Configured, Layer, Observation
from dockerd_guard.policy.model import POLICY_FILE, Policy, declared_bindings
from dockerd_guard.rootfs import Access, Content, Link, Rootfs
from dockerd_guard.rules import bad_tls_files
from dockerd_guard.systemd.exec import Command
from dockerd_guard.systemd.loading import Unit
from dockerd_guard.systemd.words import quote_word

SERVICE_DROPIN = f"{UNITS}/{SERVICE}.d/{DROPIN_NAME}"
SOCKET_DROPIN = f"{UNITS}/{SOCKET}.d/{DROPIN_NAME}"

HEADER = f"""\
# Written by dockerd-guard so that Docker listens as declared in {POLICY_FILE}.
# Do not edit: change the policy instead. `dockerd-guard fix` restores this file.
"""
"""The same under `fix --policy COPY`: otherwise the agent and `fix` would each replace the file of the other."""

NEVER = "/nonexistent/dockerd-guard"
"""A socket unit with ConditionPathExists= on this path never starts."""

TLS_FLAGS = ("tls", "tlsverify", "tlscacert", "tlscert", "tlskey")


class Change(NamedTuple):
    """One file: its path without links in its directory, its content before and after (None: not there), and the
    owner and mode of a new file."""

    path: str
    before: Content | None
    after: Content | None
    access: Access = Access()

    @property
    def is_copy(self) -> bool:
        """Whether it keeps the content of another file that changes: a saved original, or a drop-in set aside."""
        return self.after is not None and (
            SAVED_SUFFIX in self.path or self.path.rpartition("/")[2].startswith(BEFORE_OURS))

    def diff(self) -> str:
        """The change as a unified diff."""
        import difflib

        old, new = (_lines(content) for content in (self.before, self.after))
        names = ("/dev/null" if self.before is None else f"a{self.path}",
                 "/dev/null" if self.after is None else f"b{self.path}")
        return "".join(difflib.unified_diff(old, new, *names))


class Plan(NamedTuple):
    """The files to change, the configuration after that, and the configuration without our own files.

    `obstacles` says why these changes do not make the host comply; empty if they do. With an obstacle nothing is
    written. `refusals` are the errors that the corrected configuration would still have and for which dockerd or
    systemd would refuse to start it, whatever caused them.
    """

    changes: tuple[Change, ...]
    after: Configured
    base: Configured
    obstacles: tuple[str, ...] = ()
    refusals: tuple[Finding, ...] = ()
    caused: tuple[Finding, ...] = ()
    """Those of them that only this plan would cause."""


Observe = Callable[[Rootfs], Configured]
"""Reads the configured layer of a root file system."""


def make_plan(now: Configured, rootfs: Rootfs, policy: Policy, observe: Observe) -> Plan:
    """Return what must change on disk for the host to comply with the policy.

    `now` is the configured layer of the files as they are. Own drop-ins alone are tried first; then, where the policy
    allows it, with daemon.json edited; then with foreign drop-ins set aside that sort after ours.
    """
    if now.service.unit.load_state in ("not-found", "masked"):
        return Plan((), now, now, (f"{SERVICE} is {now.service.unit.load_state}",))
    if now.service.unit.name != SERVICE:
        return Plan((), now, now, (f"dockerd is started by {now.service.unit.name}, not by {SERVICE}",))
    plan = _first_without_obstacles(now, rootfs, policy, observe)
    before = {finding.message for finding in refusals_of(Observation(rootfs, now))}
    with rootfs.changed({change.path: change.after for change in plan.changes}) as corrected:
        refusals = refusals_of(Observation(corrected, plan.after))
    return plan._replace(refusals=refusals,
                         caused=tuple(finding for finding in refusals if finding.message not in before))


def refusals_of(corrected: Observation) -> tuple[Finding, ...]:
    """Errors for which dockerd would refuse to start with a configuration that it can parse."""
    return tuple(finding for finding in bad_tls_files.check(corrected, None) if finding.severity == "error")


def _first_without_obstacles(now: Configured, rootfs: Rootfs, policy: Policy, observe: Observe) -> Plan:
    ours = tuple(_own_files(rootfs))
    base = now if not ours else _observed(rootfs, dict.fromkeys(ours), observe)
    plan = _plan_with(now, rootfs, policy, observe, base, {})
    if plan.obstacles and policy.correct.foreign_files:
        foreign = dict(_daemon_json_edits(rootfs, base, policy))
        for _ in range(2):
            if foreign:
                base = _observed(rootfs, {**dict.fromkeys(ours), **foreign}, observe)
                tried = _plan_with(now, rootfs, policy, observe, base, foreign)
                if not tried.obstacles:
                    return tried
            foreign |= _set_aside(rootfs, plan.after)
    return plan


def _plan_with(  # noqa: PLR0913, PLR0917 -- the six things a plan is a function of
    now: Configured, rootfs: Rootfs, policy: Policy, observe: Observe, base: Configured,
    foreign: Mapping[str, Content | None],
) -> Plan:
    """The plan with these changes of foreign files; `base` is the host with them and without our files."""
    desired: dict[str, Content | None] = {}
    obstacles: list[str] = []
    if not complies(base.layer, policy) or _left_open(base, policy) or _has_useless_tls(base, rootfs, policy):
        for path, content in _dropins(base, rootfs, policy, obstacles):
            if (real := _real(rootfs, path)) is None:
                obstacles.append(f"{path} cannot be written: its path contains a broken symlink")
            else:
                desired[real] = content
        # If only socket units are wrong, the command line stays unchanged.
        sockets_alone = {path: content for path, content in desired.items() if f"/{SERVICE}.d/" not in path}
        if sockets_alone:
            with_sockets = _observed(rootfs, {**dict.fromkeys(_own_files(rootfs)), **sockets_alone, **foreign}, observe)
            if complies(with_sockets.layer, policy) and not _left_open(with_sockets, policy):
                desired, obstacles = sockets_alone, []
    wanted = {**dict.fromkeys(_own_files(rootfs)), **desired, **foreign}
    changes = tuple(Change(path, before, content, _access(rootfs, path, base)) for path, content in wanted.items()
                    if (before := content_at(rootfs, path)) != content)
    after = now if not changes else _observed(rootfs, {change.path: change.after for change in changes}, observe)
    obstacles += _differences(after.layer, policy) + _left_open(after, policy) if not obstacles else []
    return Plan(() if obstacles else changes, after, base, tuple(obstacles))


def _own_files(rootfs: Rootfs) -> Iterator[str]:
    """Our existing drop-ins, paths without symlinks."""
    for name in (SERVICE, SOCKET, *(name.removesuffix(".d") for name in rootfs.names(UNITS)
                                    if name.endswith(".socket.d") and name != f"{SOCKET}.d")):
        real = _real(rootfs, f"{UNITS}/{name}.d/{DROPIN_NAME}")
        if real is not None and rootfs.stat(real, follow=False) is not None:
            yield real


def _daemon_json_edits(rootfs: Rootfs, base: Configured, policy: Policy) -> Iterator[tuple[str, Content | None]]:
    """daemon.json without the keys that no flag can overrule: dockerd takes what is there, or refuses.

    Where it is a symbolic link, the link is kept under another name and a regular file takes its place.
    """
    names = {key.name for key in base.daemon.keys}
    wrong = names & (set(TLS_FLAGS) if policy.tcp_tls is not None else set())
    wrong |= names & {"hosts"}
    path = rootfs.resolve(base.daemon.config_file, follow=False)
    if not wrong or path is None:
        return
    original = content_at(rootfs, path)
    edited = rootfs.read(path)
    try:
        for name in wrong:
            edited = without_key(edited, name)
    except ValueError:
        return
    yield saved_name(rootfs, path), original
    yield path, edited


def _set_aside(rootfs: Rootfs, after: Configured) -> dict[str, Content | None]:
    """Foreign drop-ins that sort after ours and set the same key: kept under another name, and still in force under
    a name that sorts before ours, so that their other settings stay. A link is renamed as a link.

    Only files in the drop-in directories of the unit itself are renamed: one in service.d serves other units too.
    """
    found: dict[str, Content | None] = {}
    units = [(after.service.unit, ("ExecStart",)),
             *((socket.unit, ("ListenStream",)) for socket in after.sockets)]
    for unit, keys in units:
        behind = unit.dropins[unit.dropins.index(own) + 1:] if (own := _own_dropin(unit)) else ()
        setting_it = {setting.location.file for setting in unit.settings if setting.key in keys}
        for path in behind:
            directory, _, name = path.rpartition("/")
            real = rootfs.resolve(path, follow=False)
            if path not in setting_it or real != path or directory not in _own_directories(unit):
                continue
            content, aside = content_at(rootfs, path), f"{directory}/{BEFORE_OURS}{name}"
            if (there := content_at(rootfs, aside)) is not None and there not in (content, *_saved(rootfs, path)):
                # Not a copy that we made.
                found[saved_name(rootfs, aside)] = there
            found[saved_name(rootfs, path)] = found[aside] = content
            found[path] = None
    return found


def _own_directories(unit: Unit) -> frozenset[str]:
    """The drop-in directories in which files that belong to a unit alone may be renamed."""
    return frozenset(f"{base}/{unit.name}.d" for base in (
        UNITS, "/etc/systemd/system.control", "/run/systemd/system", "/run/systemd/system.control"))


def _own_dropin(unit: Unit) -> str | None:
    return next((path for path in unit.dropins if path.endswith(f"/{DROPIN_NAME}")), None)


def saved_name(rootfs: Rootfs, path: str) -> str:
    """An unused name to save a foreign file under."""
    return next(name for name in _saved_names(path) if rootfs.stat(name, follow=False) is None)


def _saved_names(path: str) -> Iterator[str]:
    yield f"{path}{SAVED_SUFFIX}"
    yield from (f"{path}{SAVED_SUFFIX}.{number}" for number in itertools.count(2))


def _saved(rootfs: Rootfs, path: str) -> Iterator[Content]:
    """What was saved of a foreign file so far."""
    for name in _saved_names(path):
        if (content := content_at(rootfs, name)) is None:
            return
        yield content


def original_of(path: str) -> str:
    """The foreign file that `path` is a copy of; `path` itself if it is no copy.

    >>> original_of("/etc/docker/daemon.json.dockerd-guard-saved"), original_of("/etc/a.d/zy-b.conf")
    ('/etc/docker/daemon.json', '/etc/a.d/b.conf')
    """
    if SAVED_SUFFIX in path:
        return path.partition(SAVED_SUFFIX)[0]
    directory, _, name = path.rpartition("/")
    return f"{directory}/{name.removeprefix(BEFORE_OURS)}"


def _access(rootfs: Rootfs, path: str, base: Configured) -> Access:
    """The owner and mode of the file, or of the original where it is a copy.

    A drop-in of docker.service contains arguments of other files: whoever cannot read these cannot read it.
    """
    found = next((Access(entry.uid, entry.gid, stat.S_IMODE(entry.mode)) for each in (path, original_of(path))
                  if (entry := rootfs.stat(each, follow=False)) is not None and entry.is_file), Access())
    if not path.endswith(f"/{SERVICE}.d/{DROPIN_NAME}"):
        return found
    sources = {argument.location.file for argument in base.arguments if argument.location is not None}
    return found._replace(mode=found.mode & ~_unreadable_bits(rootfs, sources))


def _unreadable_bits(rootfs: Rootfs, paths: Iterable[str]) -> int:
    """The read bits of group and others that one of the files, or a directory above it, does not grant."""
    bits = 0
    for path in paths:
        real = rootfs.resolve(path) or ""
        while real not in ("", "/"):
            if (entry := rootfs.stat(real, follow=False)) is not None:
                # Reading takes r of a file and x of its directories (path_resolution(7)).
                bits |= ~(entry.mode << 2 if entry.is_directory else entry.mode) & 0o044
            real = real.rpartition("/")[0]
    return bits


def _observed(rootfs: Rootfs, changes: Mapping[str, Content | None], observe: Observe) -> Configured:
    with rootfs.changed(changes) as changed:
        return observe(changed)


def complies(layer: Layer, policy: Policy) -> bool:
    """Whether a layer has exactly the bindings that the policy declares."""
    return not _differences(layer, policy)


def _differences(layer: Layer, policy: Policy) -> list[str]:
    if not layer.starts:
        return [f"{layer.refused_by} would refuse this configuration: {layer.reason}"]
    declared = {canonical(socket.address): socket for socket in declared_bindings(policy)}
    found = {canonical(binding.address): binding for binding in layer.bindings}
    words = [f"{binding.address} would still listen"
             + (f" ({binding.source})" if binding.source else "")
             for key, binding in found.items() if key not in declared]
    words += [f"{socket.address} would not listen"
              for key, socket in declared.items() if key not in found]
    words += [f"{socket.address} would be bound by dockerd itself, not passed by {SOCKET}"
              for key, socket in declared.items()
              if socket.is_passed and key in found and found[key].via is not Via.SOCKET_UNIT]
    words += [f"{socket.address} would have TLS {found[key].tls}, not {socket.tls}"
              for key, socket in declared.items()
              if key in found and found[key].tls.is_weaker(socket.tls)]
    return words


def _has_useless_tls(base: Configured, rootfs: Rootfs, policy: Policy) -> bool:
    """Whether TLS flags that no declared socket needs keep dockerd from starting, since their files are unusable."""
    has_flags = any(flag.name in TLS_FLAGS for flag in base.daemon.flags)
    return policy.tcp_tls is None and has_flags and any(
        finding.severity == "error" for finding in bad_tls_files.check(Observation(rootfs, base), policy))


def _left_open(configured: Configured, policy: Policy) -> list[str]:
    """TCP ports of socket units that stay open but unused because dockerd is not started with the declared
    `fd://`."""
    uses_fd = any(socket.address == "fd://" for socket in policy.sockets)
    if not uses_fd or any(host.startswith("fd://") for host in configured.layer.hosts):
        return []
    declared = {canonical(socket.address) for socket in declared_bindings(policy)}
    return [f"{address} would be held open by {SOCKET} or another socket unit"
            for address, _ in passed_by(configured.sockets)
            if address.startswith("tcp://") and canonical(address) not in declared]


def _dropins(
    base: Configured, rootfs: Rootfs, policy: Policy, obstacles: list[str]
) -> Iterator[tuple[str, bytes]]:
    uses_fd = any(socket.address == "fd://" for socket in policy.sockets)
    listen = [item.value for item in policy.socket_unit.listen]
    stock = next((socket for socket in base.sockets if socket.unit.name == SOCKET), None)
    if stock is None and uses_fd:
        obstacles.append("fd:// is declared, but systemd would not load a docker.socket")
    if stock is not None:
        there = {canonical(address) for address, _ in passed_by([stock])}
        wanted = {canonical(item.address) for item in policy.socket_unit.listen}
        # Without fd:// nothing accepts on these; a TCP port is still not left open.
        open_tcp = any(address.startswith("tcp://") for address in there - wanted)
        if there != wanted and (uses_fd or open_tcp):
            lines = "".join(f"ListenStream={value}\n" for value in listen)
            yield SOCKET_DROPIN, f"{HEADER}[Socket]\nListenStream=\n{lines}".encode()
    wanted = {canonical(item.address) for item in policy.socket_unit.listen} if uses_fd else set()
    for socket in base.sockets:
        if socket is not stock and any(canonical(address) not in wanted for address, _ in passed_by([socket])):
            yield (f"{UNITS}/{socket.unit.name}.d/{DROPIN_NAME}",
                   f"{HEADER}[Unit]\nConditionPathExists=\nConditionPathExists={NEVER}\n".encode())
    command = main_command(base.service)
    if command is None:
        obstacles.append(f"{SERVICE} has no usable ExecStart=")
        return
    if any(word.offset or word.text != base.arguments[word.argument].text for word in base.daemon.program.words):
        obstacles.append("docker.service starts dockerd from a shell command line, "
                         f"which dockerd-guard does not edit ({command.location})")
        return
    # dockerd loads its TLS files whatever its hosts are (moby cmd/dockerd/daemon.go, newAPIServerTLSConfig).
    line = command_line(base, command, policy, drops_tls=_has_useless_tls(base, rootfs, policy))
    yield SERVICE_DROPIN, f"{HEADER}[Service]\nExecStart=\nExecStart={line}\n".encode()


def command_line(base: Configured, command: Command, policy: Policy, *, drops_tls: bool) -> str:
    """The ExecStart= that makes dockerd comply: every argument except -H and TLS flags is kept.

    A word that contains none of these stays as written, including variables and specifiers. A word that expands
    to some of them (`$DOCKER_OPTS` with `-H`) is replaced by the rest of its value.
    """
    texts = tuple(argument.text for argument in base.arguments)
    in_file = {key.name for key in base.daemon.keys}
    ours = [flag for flag in _flags(policy, base) if flag[0].lstrip("-").partition("=")[0] not in in_file]
    is_tls_ours = policy.tcp_tls is not None or drops_tls
    dropped = {"host"} | (set(TLS_FLAGS) if is_tls_ours else set())
    kept = _without(texts, [flag for flag in base.daemon.flags if flag.name in dropped])
    words = [command.head]
    placed = False
    came_of: dict[int, list[int]] = {}
    for number, argument in enumerate(base.arguments):
        came_of.setdefault(argument.word, []).append(number)
    for index, word in enumerate(command.argv):
        if index == 0:
            continue
        pieces = came_of.get(index, [])
        if all(kept[number] == texts[number] for number in pieces):
            words.append(word.raw)
            continue
        if not placed:
            words += [_quoted(command, text) for flag in ours for text in flag]
            placed = True
        words += [_quoted(command, text) for number in pieces if (text := kept[number]) is not None]
    if not placed:
        own = base.daemon.program.words
        place = base.arguments[own[0].argument].word if own else len(words)
        words[place:place] = [_quoted(command, text) for flag in ours for text in flag]
    return " ".join(words)


def _without(texts: tuple[str, ...], flags: Iterable[Flag]) -> list[str | None]:
    """The arguments without these flags and their values; None for an argument that is dropped entirely.

    A shorthand may follow others in one argument: `-DHtcp://x` leaves `-D`.
    """
    kept: list[str | None] = list(texts)
    for flag in flags:
        kept[flag.argument] = texts[flag.argument][: flag.offset] if flag.offset > 1 else None
        if flag.words > 1 and flag.value_argument is not None:
            kept[flag.value_argument] = None
    return kept


def _quoted(command: Command, text: str) -> str:
    return quote_word(text, env_expand=not command.no_env_expand)


def _flags(policy: Policy, base: Configured) -> Iterable[tuple[str, ...]]:
    """The flags that the policy requires, each as its words. `hosts` in daemon.json excludes -H."""
    if not any(key.name == "hosts" for key in base.daemon.keys):
        for socket in policy.sockets:
            yield ("-H", socket.address)
    if policy.tcp_tls is Tls.NONE:
        # An explicit flag avoids the 15 s pause of dockerd (moby 5f5285a6e2).
        yield ("--tls=false",)
    elif policy.tcp_tls is not None:
        yield ("--tlsverify" if policy.tcp_tls is Tls.MUTUAL else "--tlsverify=false",)
        if policy.tcp_tls is Tls.MUTUAL:
            yield (f"--tlscacert={policy.tls.ca}",)
        yield (f"--tlscert={policy.tls.cert}",)
        yield (f"--tlskey={policy.tls.key}",)


def _real(rootfs: Rootfs, path: str) -> str | None:
    """The path to write one of our files to, without symlinks in its directory; the directory may not exist yet.

    None if the path contains a broken symlink. A symlink at the path itself is replaced.
    """
    directory, _, name = path.rpartition("/")
    if not directory:
        return path
    if (real := rootfs.resolve(directory)) is None:
        if (above := _real(rootfs, directory)) is None or rootfs.stat(above, follow=False) is not None:
            return None
        real = above
    return f"{real}/{name}"


def content_at(rootfs: Rootfs, path: str) -> Content | None:
    """Return what is at a path, as Change has it: None for nothing, empty for neither a regular file nor a link."""
    entry = rootfs.stat(path, follow=False)
    if entry is None:
        return None
    if entry.is_link:
        return Link(rootfs.readlink(path) or "")
    return rootfs.read(path) if entry.is_file else b""


def files_of(configured: Configured) -> Iterator[str]:
    """The files that determine where Docker listens."""
    for unit in (configured.service.unit, *(socket.unit for socket in configured.sockets)):
        if unit.fragment is not None:
            yield unit.fragment
        yield from unit.dropins
    yield from (file.path for file in configured.service.environment_files)
    yield configured.daemon.config_file


def _lines(content: Content | None) -> list[str]:
    if isinstance(content, Link):
        return [f"symbolic link to {content.target}\n"]
    return (content or b"").decode("utf-8", "backslashreplace").splitlines(keepends=True)
