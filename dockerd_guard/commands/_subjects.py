"""What `lint` judges: each dockerd that a root directory configures, and why an answer is incomplete."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from dockerd_guard.commands._common import Look
from dockerd_guard.dockerd.daemon import DEFAULT_CONFIG_FILE
from dockerd_guard.model.location import Location
from dockerd_guard.observe import unread_hosts
from dockerd_guard.observe.observation import Observation
from dockerd_guard.rules.judge import judge
from dockerd_guard.rules.unused_variable import VARIABLES

if TYPE_CHECKING:
    from dockerd_guard.model.finding import Finding
    from dockerd_guard.systemd.syntax import Setting


_CONFIG = re.compile(r"/daemon\.json(?![\w.-])")
_WRITER = re.compile(r"\b(?:cp|mv|ln|install|rsync|tee|dd|sed)\s|>")
MAX_COMMAND, MAX_CONFIGS = 400, 100
"""Characters of a command before the name of daemon.json, and such names, that are looked at."""


class Judged(NamedTuple):
    """The findings of one root with their locations in it, and `files`, which may contain comments about them.

    `empty` says where there is no configuration of dockerd, which leaves the question open unless that is allowed.
    """

    findings: tuple[Finding, ...]
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    judged: bool = True
    empty: tuple[str, ...] = ()


def judge_host(look: Look) -> Judged:
    """Judge the live host."""
    findings = annotated(look, judge(look.seen, look.policy))
    troubles = tuple(trouble.text for trouble in look.seen.troubles)
    unit = look.seen.configured.service.unit
    if unit.load_state == "not-found" and not look.seen.others:
        troubles += (f"{unit.reason} No other dockerd runs on this host: there is nothing to judge",)
        return Judged(findings, unit_files_of(look.seen), (), troubles, judged=bool(findings))
    return Judged(findings, unit_files_of(look.seen), (), troubles)


def combined(parts: Iterable[Judged]) -> Judged:
    """Several results as one. What is found twice is kept once."""
    findings: dict[object, Finding] = {}
    notes: dict[str, None] = {}
    unanswered: dict[str, None] = {}
    files: dict[str, None] = {}
    judged = False
    for part in parts:
        for finding in part.findings:
            findings.setdefault((finding.code, finding.location, finding.message), finding)
        notes |= dict.fromkeys(part.notes)
        unanswered |= dict.fromkeys(part.unanswered)
        files |= dict.fromkeys(part.files)
        judged = judged or part.judged
    return Judged(tuple(sorted(findings.values(), key=lambda finding: finding.order)), tuple(files), tuple(notes),
                  tuple(unanswered), judged)


def annotated(look: Look, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings with how `fix` corrects them under the policy."""
    if not findings or look.policy is None:
        # Without findings no plan is needed, which makes a cold start faster.
        return findings
    from dockerd_guard.commands.diff import assessed
    from dockerd_guard.plan.assessment import annotate_fixability

    return annotate_fixability(assessed(look, findings))


def incomplete(seen: Observation, findings: tuple[Finding, ...]) -> Iterator[str]:
    """Why the files do not show where dockerd listens, where the live layers are not observed."""
    layer, unit = seen.configured.layer, seen.configured.service.unit
    if layer.starts and layer.reason:
        yield f"{unit.name}: {layer.reason}"
    elif not layer.starts and not findings and unit.load_state != "masked":
        yield f"{unit.name} does not start, {layer.refused_by} refuses: {layer.reason}"
    for setting in unit.settings:
        if setting.key in ("ExecStartPre", "ExecCondition") and _writes_config(setting.value):
            yield f"{setting.location}: writes daemon.json before dockerd starts, which the files do not show"
        if setting.key.startswith("Exec") and "set-environment" in setting.value:
            yield f"{setting.location}: sets variables of systemd at run time, which the files do not show"
    for setting, path in _replaced(seen):
        yield f"{setting.location}: {setting.key}= replaces {path} for dockerd, and what is there is not known"
    for name in _passed(seen):
        yield f"{unit.name}: PassEnvironment= passes {name} to the command of dockerd, which the files do not show"


_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


def variables_of(seen: Observation) -> Iterator[str]:
    """Yield the variables in the command that starts dockerd."""
    for command in seen.configured.service.exec_start[-1:]:
        for word in command.argv:
            yield from _VARIABLE.findall(word.text)


def host_in_other_variables(seen: Observation, path: str, text: str) -> tuple[int, str] | None:
    """The first line of an environment file that names a TCP host in a variable that the command does not use, and
    what it does. What starts dockerd on other systems, as an init script, may use it."""
    read = "|".join(map(re.escape, sorted({*variables_of(seen), *VARIABLES})))
    lines = rf"(?m:^)[ \t]{{0,80}}(?:export[ \t]{{1,8}})?(?:{read})=(?:[^\n\\]|\\[\s\S])*"
    return unread_hosts.first_way(path, re.sub(lines, lambda found: "\n" * found[0].count("\n"), text))


def _passed(seen: Observation) -> Iterator[str]:
    """Yield the variables of the command that the manager may pass, from the kernel's command line or a generator."""
    environment = seen.configured.environment
    passed = {word.text for word in seen.configured.service.pass_environment}
    for name in dict.fromkeys(variables_of(seen)) if passed else ():
        if name in passed and name not in environment.expansion and name not in environment.unknown_expansion:
            yield name


_MOUNTS = ("BindPaths", "BindReadOnlyPaths", "MountImages", "TemporaryFileSystem", "InaccessiblePaths",
           "InaccessibleDirectories")
_EXTENSIONS = ("ExtensionImages", "ExtensionDirectories")
_ROOTS = ("RootDirectory", "RootImage", "RootMStack")
_WITH_SOURCE = ("BindPaths", "BindReadOnlyPaths", "MountImages")


def _replaced(seen: Observation) -> Iterator[tuple[Setting, str]]:
    """Yield the settings that give dockerd other files than the host has, and the path that each is about: its
    configuration file or its program (systemd.exec(5), Paths and Sandboxing)."""
    configured = seen.configured
    paths = [configured.daemon.config_file or DEFAULT_CONFIG_FILE,
             *(command.path for command in configured.service.exec_start[-1:])]
    mounts: dict[str, list[Setting]] = {}
    for setting in configured.service.unit.settings:
        if setting.section == "Service" and setting.key in (*_MOUNTS, *_EXTENSIONS, *_ROOTS):
            # The two of bind mounts are one list, which an empty value resets; of a root, the last one applies.
            key = setting.key.replace("ReadOnly", "")
            if not setting.value or key in _ROOTS:
                mounts.pop(key, None)
            if setting.value and setting.value != "/":
                mounts.setdefault(key, []).append(setting)
    for setting in chain.from_iterable(mounts.values()):
        if setting.key not in _MOUNTS:
            yield setting, "/"
            continue
        targets = [*_targets(setting)]
        for path in paths:
            if any("%" in target or f"{path}/".startswith(f"{target}/") for target in targets):
                yield setting, path
                break


def _targets(setting: Setting) -> Iterator[str]:
    """Yield where a setting mounts something else than what is there."""
    for word in re.findall(r"[^\s\"']+", setting.value):
        source, _, rest = word.lstrip("-+").partition(":")
        target = (rest.partition(":")[0] or source) if setting.key in _WITH_SOURCE else source
        if setting.key.startswith("Bind") and posixpath.normpath(source) == posixpath.normpath(target):
            continue
        # %E is /etc (systemd.unit(5), Specifiers).
        yield posixpath.normpath(target.replace("%E", "/etc")).rstrip("/")


def _writes_config(commands: str) -> bool:
    """Whether a command writes the configuration of dockerd."""
    return any(_WRITER.search(re.split("[;|&]", commands[max(0, found.start() - MAX_COMMAND):found.start()])[-1])
               for found in islice(_CONFIG.finditer(commands), MAX_CONFIGS))


def unit_files_of(seen: Observation) -> tuple[str, ...]:
    """The files of docker.service and its sockets, and the environment files."""
    service = seen.configured.service
    units = (service.unit, *(socket.unit for socket in seen.configured.sockets))
    files = [path for unit in units for path in (unit.fragment, *unit.dropins) if path is not None]
    return (*files, *(file.path for file in service.environment_files))


def relocated(
    findings: Iterable[Finding], place: Callable[[Location], Location | None], assumed: Collection[str]
) -> tuple[Finding, ...]:
    """The findings with their locations as `place` returns them; None for a file that is not there. Messages name no
    lines of `assumed` files, which are stock units."""
    names = "|".join(map(re.escape, sorted(assumed, key=len, reverse=True)))
    pattern = re.compile(rf"(?:{names})(?::[0-9]{{1,9}}:[0-9]{{1,9}})?(?![\w./-])") if names else None
    return tuple(_relocated(finding, place, pattern) for finding in findings)


def _relocated(
    finding: Finding, place: Callable[[Location], Location | None], assumed: re.Pattern[str] | None
) -> Finding:
    message, where = finding.message, finding.location
    if where is not None and (location := place(where)) is None:
        # The other place that the message names, as of the other hosts of a conflict.
        message = message.replace(" here", " in the stock unit")
        named = re.search(r"(?:by (\w{1,80}) in )?(/\S{1,4096}):([0-9]{1,9}):([0-9]{1,9})", message)
        where = Location(named[2], int(named[3]), int(named[4]), int(named[4]) + len(named[1] or "")
                         ) if named is not None else None
        location = place(where) if where is not None else None
    else:
        location = None if where is None else location
    if assumed is not None:
        message = assumed.sub(lambda found: f"the stock {found[0].partition(':')[0].rpartition('/')[2]}", message)
    return finding._replace(message=message, location=location)
