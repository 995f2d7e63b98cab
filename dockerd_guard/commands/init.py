"""The verb `init`: write a policy that declares the current sockets of this host, so that nothing is drift.

Dangerous sockets are declared too, but marked, with a safer alternative in a comment. Declarations come from the
files, which apply from the next start on; sockets that are only open on the live host are listed as a comment. The
policy is valid, and its comments contain the results of `lint` and `diff` with it.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dockerd_guard.apply import files
from dockerd_guard.commands._common import (
    OK,
    Unanswerable,
    look_at,
    print_lines,
)
from dockerd_guard.model.address import Binding, Scope, Tls, Via, canonical, split_host_port
from dockerd_guard.plan.assessment import plan_for
from dockerd_guard.plan.plan import saved_name
from dockerd_guard.policy.model import POLICY_FILE, Mode, PolicyError
from dockerd_guard.policy.reader import load_policy, parse_policy
from dockerd_guard.policy.values import parse_address, parse_listen_stream
from dockerd_guard.report.policy import AdoptedSocket, Adoption, summary, text
from dockerd_guard.rootfs import Rootfs, Unreadable
from dockerd_guard.rules.judge import judge

if TYPE_CHECKING:
    from types import SimpleNamespace

    from dockerd_guard.observe.observation import Layer, Observation


def adopt(seen: Observation) -> tuple[Adoption, str]:
    """The current sockets of this host, and the policy that declares them. Raises PolicyError if it is invalid."""
    found = _look(seen)
    policy = parse_policy(text(found).encode())
    findings = judge(seen, policy)
    enforced = judge(seen, policy._replace(mode=Mode.ENFORCE))
    plan = plan_for(seen, policy)
    found = found._replace(
        findings=findings,
        before_enforce=tuple(finding for finding in enforced if finding not in findings),
        differences=tuple(change.path for change in plan.changes),
        obstacles=plan.obstacles,
    )
    written = text(found)
    parse_policy(written.encode())
    return found, written


def write(path: str, text: str, *, force: bool) -> str | None:
    """Write a policy, owned by root if root writes it. Returns the name of the saved previous file, if any.

    Raises FileExistsError if the path exists without `force` or is not a regular file; OSError; and PolicyError if
    the agent would refuse the file.
    """
    target = os.path.abspath(path)
    directory, name = os.path.split(target)
    real = os.path.join(os.path.realpath(directory), name)
    saved = None
    with Rootfs() as host:
        there = host.stat(real, follow=False)
        if there is not None:
            # Replacing a symlink or a device (/dev/stdout) would not write to its target.
            if not force or not there.is_file:
                raise FileExistsError
            saved = saved_name(host, real)
            os.link(real, saved, follow_symlinks=False)
    files.write_new(real, text.encode(), replace=force)
    if target == POLICY_FILE:
        load_policy(target, require_root_owned=True)
    return saved


def _look(seen: Observation) -> Adoption:
    files = seen.configured.layer
    live = [layer for layer in reversed(seen.layers) if layer is not files]
    first = next((layer for layer in (files, *live) if layer.bindings), files)
    declared: dict[str, AdoptedSocket] = {}
    refused: dict[str, AdoptedSocket] = {}
    for entry in _entries(first):
        (refused if entry.refused else declared).setdefault(entry.key, entry)
    # A host name in the files is declared by its current address, if the kernel shows it.
    names = {_port(entry.binding) for entry in refused.values() if entry.binding.is_tcp}
    only_live: dict[str, AdoptedSocket] = {}
    for entry in (entry for layer in live if layer is not first for entry in _entries(layer)):
        if entry.key in declared or entry.key in refused:
            continue
        is_named = entry.binding.is_tcp and _port(entry.binding) in names and not entry.refused
        (declared if is_named else only_live).setdefault(entry.key, entry)
    taken, swallowed = _without_overlap(declared.values())
    return Adoption(taken, (*refused.values(), *swallowed), tuple(only_live.values()), tuple(_tls(seen, taken)),
                    tuple(_remarks(seen, taken)))


def _entries(layer: Layer) -> Iterator[AdoptedSocket]:
    for found in layer.bindings:
        binding = found._replace(tls=Tls.NONE) if found.tls is Tls.UNKNOWN else found
        value, parse = binding.address, parse_address
        if binding.via is Via.SOCKET_UNIT:
            value, parse = value.removeprefix("unix://").removeprefix("tcp://"), parse_listen_stream
        elif value.startswith("unix://") and not value.startswith(("unix:///", "unix://@")):
            value = f"unix:///{value.removeprefix('unix://')}"  # relative to /, the working directory of a service
        if not value.isprintable() or value.startswith("vsock:"):
            yield AdoptedSocket(binding, value, binding.key, "a policy cannot contain this address")
            continue
        try:
            yield AdoptedSocket(binding, value, canonical(parse(value)))
        except ValueError as error:
            yield AdoptedSocket(binding, value, binding.key, str(error) or "a policy cannot contain this address")


def _without_overlap(entries: Iterable[AdoptedSocket]) -> tuple[tuple[AdoptedSocket, ...], tuple[AdoptedSocket, ...]]:
    """The sockets that a policy can declare together, and the rest: a wildcard address includes its port on every
    address, and all TCP sockets share the TLS setting of the first."""
    entries = tuple(entries)
    tls = next((entry.binding.tls for entry in entries if entry.binding.is_tcp), Tls.NONE)
    wide = {_port(entry.binding): entry for entry in entries
            if entry.binding.is_tcp and entry.binding.scope is Scope.WILDCARD}
    taken: list[AdoptedSocket] = []
    swallowed: list[AdoptedSocket] = []
    for entry in entries:
        above = wide.get(_port(entry.binding)) if entry.binding.is_tcp else None
        if above is not None and above is not entry:
            swallowed.append(entry._replace(
                refused=f"{above.binding.address} already includes this port on every address"))
        else:
            is_tcp = entry.binding.is_tcp
            taken.append(entry._replace(binding=entry.binding._replace(tls=tls)) if is_tcp else entry)
    return tuple(taken), tuple(swallowed)


def _tls(seen: Observation, declared: tuple[AdoptedSocket, ...]) -> Iterator[tuple[str, str]]:
    setting = seen.configured.daemon.tls
    if setting.mode is Tls.NONE or not any(entry.binding.is_tcp for entry in declared):
        return
    paths = {"ca": setting.ca if setting.mode is Tls.MUTUAL else None, "cert": setting.cert, "key": setting.key}
    for key, path in paths.items():
        if path and path.isprintable():
            yield key, posixpath.join("/", path)  # relative to /, as above


def _remarks(seen: Observation, declared: tuple[AdoptedSocket, ...]) -> Iterator[str]:
    unit, files = seen.configured.service.unit, seen.configured.layer
    if unit.load_state in ("not-found", "masked"):
        yield f"Docker not found: {unit.reason or unit.name + ' is ' + unit.load_state}"
    elif not files.starts:
        yield (f"docker.service does not start with these files; {files.refused_by} refuses: {files.reason}. "
               "Everything in the files is declared.")
    elif files.reason:
        yield f"The result of these files is uncertain: {files.reason}."
    if not declared:
        yield "Nothing was found that a policy can declare; fd://, the sockets of docker.socket, is a start."
    for trouble in seen.troubles:
        yield f"Degraded visibility: {trouble.text}."


def _port(binding: Binding) -> str:
    return split_host_port(binding.address)[1]


def run(options: SimpleNamespace) -> int:
    """Write a policy that declares the current sockets of this host. Returns the exit code."""
    options.root = [options.root] if options.root else []
    target = options.output or ("-" if options.root else POLICY_FILE)
    try:
        with Rootfs(*options.root) as rootfs:
            found, text = adopt(look_at(rootfs, options, with_policy=False).seen)
    except OSError as error:
        raise Unanswerable(f"{''.join(options.root) or '/'}: {error.strerror or error}") from None
    except (PolicyError, Unreadable) as error:
        raise Unanswerable(str(error)) from None
    if target == "-":
        print(text, end="")
        return OK
    try:
        saved = write(target, text, force=options.force)
    except FileExistsError:
        raise Unanswerable(
            f"{target} exists and is not a regular file" if options.force else
            f"{target} exists: `init --output -` prints the new policy, `init --force` replaces the file and keeps the "
            "previous one under another name") from None
    except OSError as error:
        raise Unanswerable(f"{target}: {error.strerror or error}") from None
    except PolicyError as error:
        raise Unanswerable(f"{target} was written, but the agent would refuse it:\n{error}") from None
    print_lines(summary(found, target, saved))
    return OK
