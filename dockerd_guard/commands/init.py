"""`init`: a policy that says what this host does now, so that nothing is drift on the day it is adopted.

What is dangerous is declared too, or adopting would be a change; but it is marked, and the safer line
stands beside it. The files say what is declared, since they hold from the next start on; what only the live
host shows is told as a comment. Nothing is written that the policy's own grammar does not take, and
all that `lint` and `diff` say of the host by this policy is said in it.
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
    from argparse import Namespace

    from dockerd_guard.observe.observation import Layer, Observation


def adopt(seen: Observation) -> tuple[Adoption, str]:
    """What this host does now, and the policy's text that says so. Raises PolicyError where no policy can."""
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
    """Put a policy at a path, as root's own when root writes it; gives the name that what was there has
    now. Raises FileExistsError without `force`, and always for what is no regular file; OSError; and PolicyError
    where the agent would not take the file as it lies there."""
    target = os.path.abspath(path)
    directory, name = os.path.split(target)
    real = os.path.join(os.path.realpath(directory), name)
    saved = None
    with Rootfs() as host:
        there = host.stat(real, follow=False)
        if there is not None:
            # A link or a device (/dev/stdout) stands for something else, which would not be what is replaced.
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
    # For a host name in the files stands the address that it has now, where the kernel shows it.
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
    for binding in layer.bindings:
        value, parse = binding.address, parse_address
        if binding.via is Via.SOCKET_UNIT:
            value, parse = value.removeprefix("unix://").removeprefix("tcp://"), parse_listen_stream
        elif value.startswith("unix://") and not value.startswith(("unix:///", "unix://@")):
            value = f"unix:///{value.removeprefix('unix://')}"  # it is relative to /, where systemd starts a service
        if not value.isprintable() or value.startswith("vsock:"):
            yield AdoptedSocket(binding, value, binding.key, "no policy holds such an address")
            continue
        try:
            yield AdoptedSocket(binding, value, canonical(parse(value)))
        except ValueError as error:
            yield AdoptedSocket(binding, value, binding.key, str(error) or "no policy holds such an address")


def _without_overlap(entries: Iterable[AdoptedSocket]) -> tuple[tuple[AdoptedSocket, ...], tuple[AdoptedSocket, ...]]:
    """What dockerd can do at once, and the rest: a wildcard takes its port on every address, and all TCP
    has one TLS setting, that of the first."""
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
                refused=f"{above.binding.address} already takes this port on every address"))
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
        yield f"There is no Docker to be seen: {unit.reason or unit.name + ' is ' + unit.load_state}"
    elif not files.starts:
        yield (f"By these files docker.service does not start; {files.refused_by} refuses: {files.reason}. "
               "All that is written in them is declared.")
    elif files.reason:
        yield f"What the files say cannot be told for sure: {files.reason}."
    if not declared:
        yield "Nothing was found that a policy can declare; fd://, what docker.socket passes on, is a beginning."
    for trouble in seen.troubles:
        yield f"Not everything could be seen: {trouble.text}."


def _port(binding: Binding) -> str:
    return split_host_port(binding.address)[1]


def run(options: Namespace) -> int:
    """Write a policy that declares what this host does now; returns the exit code."""
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
            f"{target} is there already, and is no regular file" if options.force else
            f"{target} is there already: `init --output -` shows what would be written, `init --force` writes it and "
            "keeps what is there under another name") from None
    except OSError as error:
        raise Unanswerable(f"{target}: {error.strerror or error}") from None
    except PolicyError as error:
        raise Unanswerable(f"{target} is written, but the agent would not take it:\n{error}") from None
    print_lines(summary(found, target, saved))
    return OK
