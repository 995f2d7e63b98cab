"""What a file of a repository configures, by its name, its directory and its content: its place on a host.

`roles/docker/templates/override.conf.j2` is a drop-in of docker.service wherever it is kept.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import NamedTuple

from dockerd_guard.dockerd.config import UNCHECKED
from dockerd_guard.dockerd.options import options_of
from dockerd_guard.model.names import SERVICE, SOCKET
from dockerd_guard.observe import stock_units
from dockerd_guard.observe.misnamed import is_near_daemon_json
from dockerd_guard.observe.template_tags import SUFFIXES
from dockerd_guard.observe.templates import Syntax
from dockerd_guard.policy.keys import KEYS

SYSTEM_UNITS = "/etc/systemd/system"
DAEMON_JSON = "/etc/docker/daemon.json"
CONTAINERD = "/etc/containerd/"
HOME = "/home/user"
"""Home directory of the account whose files are judged."""

_ROOTED = re.compile(
    r"(?P<top>(?:.*/)?)(?<!usr/)(?<!usr/local/)(?P<place>(?:etc|run|usr/lib|usr/local/lib|lib)/systemd/(?:system|user)/[^/].*"
    r"|etc/systemd/docker[^/]*\.d/[^/]*\.conf|etc/(?:(?:default|sysconfig|dockerd)/)?daemon\.json"
    r"|etc/docker/[^/]*\.json|etc/containerd/.*\.toml|etc/(?:default|sysconfig|conf\.d)/docker[^/]*)\Z", re.DOTALL)
_DROP_IN = re.compile(r"(?:.*/)?(?P<unit>[^/]+\.(?:service|socket))\.d/(?P<name>[^/]+)\Z", re.DOTALL)
COPY = (
    r"(?:~|\.(?:bak|backup|orig|old|saved?|disabled|off|example|sample|dist|dockerd-guard-saved|dpkg-[a-z]+|ucf-[a-z]+|"
    r"rpmsave|rpmnew|rpmorig|pacnew|pacsave|swp)(?:[.-]?[0-9]{1,14})?)\Z")
"""Ends of names of copies and examples, which are not in effect."""

_COPY = re.compile(COPY, re.IGNORECASE)

_VARIANT = re.compile(r"\.conf(?:\Z|[._-](?!txt\Z))")
"""A drop-in, or a name that a drop-in for one host or distribution has before it is installed."""

_USER = re.compile(r"(?:.*/)?(?:\.config|\.local/share|etc|usr/lib)/systemd/user/", re.DOTALL)
_CONTAINERS = frozenset((
    "files", "file", "templates", "template", "default", "docker", "docker.service.d", "docker.socket.d", "etc",
    "systemd", "system", "sysconfig", "conf.d", "config", "configs", "conf",
))
"""Directories of one role, cookbook or image. Files below different ones belong together."""

_KEYS_OF_POLICY = frozenset(key.name for key in KEYS if "." not in key.name)

PROGRAMS = frozenset(("bin", "include", "lib", "lib64", "Lib", "Scripts"))
"""Directories of a virtual environment, beside pyvenv.cfg (docs.python.org/3/library/venv.html)."""

_UNIT_SECTION = re.compile(r"^[ \t]{0,80}\[(Service|Socket)\]", re.MULTILINE)
_SETTING = re.compile(
    r"^[ \t]{0,80}(?:(ExecStart)[ \t]{0,8}=[^\n]{0,400}docker(?:d|[ \t]{1,8}(?:daemon|-d))\b|ListenStream[ \t]{0,8}=)",
    re.MULTILINE)
"""A setting that shows what a drop-in is for, where its section is missing or misspelled (`[service]`)."""

_WHOLE_UNIT = re.compile(r"(docker\.(?:service|socket))\.[A-Za-z0-9_-]{1,40}\Z")
"""A unit for one distribution, as docker.service.rpm of moby (contrib/init/systemd)."""
_NAMES_DOCKER = re.compile(r"docker", re.IGNORECASE)
_DAEMON_KEYS = re.compile(
    r'"(?:hosts|live-restore|log-driver|log-opts|exec-opts|storage-driver|storage-opts|insecure-registries|'
    r'registry-mirrors|tlsverify|tlscacert|data-root|userland-proxy|default-address-pools|userns-remap|'
    r'metrics-addr|default-ulimits|bip|containerd|cgroup-parent|default-runtime|selinux-enabled)"\s{0,80}:')
_OPTIONS = re.compile(r"^[ \t]{0,80}(?:export[ \t]{1,8})?(DOCKER_OPTS|DOCKER_OPTIONS|DOCKER_NETWORK_OPTIONS|"
                      r"DOCKER_STORAGE_OPTIONS|DOCKERD_OPTS|OPTIONS|other_args)=(.*)", re.MULTILINE)
_ENVIRONMENT_FILE = re.compile(
    r"(?:\A|/)(?:(?:default|sysconfig|conf\.d)/[^/]*|dockerd?(?:[._-](?:default|sysconfig|confd?|opts|options|engine|"
    r"network|storage))*)\Z", re.IGNORECASE)
"""Paths of environment files of dockerd in packages and roles."""

_BUILD_FILE = re.compile(r"(?:\A|[/._-])(?:docker|container|(?:gnu)?make|just|jenkins|vagrant)file(?:[._-][^/]*)?\Z|"
                         r"\.(?:mk|mak|make)\Z", re.IGNORECASE)
_COMMAND = re.compile(
    r"^[ \t]{0,80}(?!(?:export[ \t]{1,8})?[A-Za-z_][A-Za-z0-9_]*[ \t]{0,8}=)[A-Za-z.@\[]", re.MULTILINE)
"""A line that a shell executes, or make does, and that is no assignment."""

_FLAG = re.compile(r"(?:(?<=[\s=\"'])|\A)-(?:-([a-z][a-z0-9-]*)|([A-Za-z]))")
MAX_FLAGS, MAX_KEYS = 200, 20
"""Flags and keys that are compared with those of dockerd."""

_FEDORA = ("OPTIONS", "other_args", "DOCKER_NETWORK_OPTIONS", "DOCKER_STORAGE_OPTIONS")

NAMES = ("docker", "override", "host.conf", "hosts.conf", "cloud", "userdata", "user-data", "compose", "ignition",
         "butane")
"""What names of files, or of their directory, contain that are looked into when a directory is given."""

ENDS = (".service", ".socket", ".ign", ".bu", ".fcc", ".conf", ".toml", ".container", ".pod", ".kube", ".volume",
        ".network", ".yml", ".yaml")
"""What the names of others end in."""

_CANDIDATE = re.compile(
    rf"{'|'.join(map(re.escape, NAMES))}|daemon.*\.json|/d[aemno]{{3,6}}s?\.j[ason]{{1,5}}(?:\.txt)?\Z"
    rf"|(?:{'|'.join(map(re.escape, ENDS))})\Z", re.IGNORECASE)


_CONTAINERD_KEYS = re.compile(r"^[ \t]{0,80}(?:tcp_address[ \t]{0,80}=|\[debug\])", re.MULTILINE)
_DOCKERS = re.compile(r"dockerd|(?:docker|podman)\.sock|podman[^\n]{0,200}[ \t]system[ \t]{1,80}service|"
                      r"^Service[ \t]{0,80}=[ \t]{0,80}docker\.service", re.MULTILINE)

_QUADLET_DROP_IN = re.compile(r"(?:\A|[./])(?:container|pod|kube|volume|network|build|image)\.d/[^/]+\Z")

_NO_SETTINGS = (".md", ".rst", ".sh", ".yml", ".yaml", ".json")
"""Names of files that may quote a setting, and are none."""

_UNITS = (".service", ".socket", ".timer", ".path", ".mount", ".target", ".slice",
          ".container", ".pod", ".kube", ".volume", ".network", ".build", ".image")
"""Names of units, and of files that Podman makes units of. Another unit is no drop-in of Docker's because it mentions
Docker, as in After=."""


class Kind(NamedTuple):
    """The place of a file on a host, how it is written, and whether it is of an account (rootless).

    `group` is the directory that the file belongs to with others: a root directory, a role. `system` is the one that
    has a daemon.json of this name or at this place, and not at /etc/docker (stock_units.system_of()).
    """

    place: str
    syntax: Syntax
    group: str
    is_rootless: bool = False
    system: str = ""


def plain_name(name: str) -> str:
    """The name without the suffixes of templates."""
    lower = name.lower()
    suffix = next((suffix for suffix in SUFFIXES if lower.endswith(suffix) and len(lower) > len(suffix)), "")
    return plain_name(name[:-len(suffix)]) if suffix else name


def is_looked_into(directory: str, name: str) -> bool:
    """Whether a file in a directory of this name may configure dockerd, by its name."""
    name = plain_name(name)
    return _CANDIDATE.search(f"{directory}/{name}") is not None or is_near_daemon_json(name)


def kind_of(path: str, text: str, *, is_named: bool) -> Kind | None:
    """Return what a file configures; None if it is nothing of dockerd's. `is_named`: it was given by its name, so
    that its content need not mention Docker."""
    path = plain_name(path)
    is_rootless = _USER.match(path) is not None or "/.config/docker/" in f"/{path}"
    group = group_of(path)
    if (misnamed := _misnamed(path, text, group, is_rootless)) is not None:
        return misnamed
    if (found := _ROOTED.match(path)) is not None:
        place = "/" + found["place"]
        if "/systemd/" not in place:
            return Kind(place, "json" if place.endswith(".json") else "environment", found["top"])
        name = place.rpartition("/")[2]
        if _is_dockers(place, text) and name.endswith((".conf", ".service", ".socket")):
            place = re.sub(r"\A/(?:etc|usr/lib|lib|usr/local/lib|run)/systemd/user/", SYSTEM_UNITS + "/", place)
            return Kind(place, "unit", found["top"], is_rootless)
        return None
    kind = _by_name(path, text, group, is_rootless, is_named) or _by_content(path, text, group, is_named)
    is_json = kind is not None and kind.place == DAEMON_JSON
    return kind._replace(system=stock_units.system_of(path)) if kind is not None and is_json else kind


def _misnamed(path: str, text: str, group: str, is_rootless: bool) -> Kind | None:
    """A file that dockerd or systemd does not read for its name only, at the place where it looks like one that is
    read: a rule says so."""
    name = path.rpartition("/")[2]
    if is_near_daemon_json(name) and text.lstrip("\ufeff \t\r\n").startswith("{") and not (
            _is_of_another_program(path, text)):
        return Kind(f"/etc/docker/{name}", "json", group, is_rootless)
    drop_in = _DROP_IN.match(path)
    # No docker.socket of an account is judged without its file.
    units = (SERVICE,) if is_rootless else (SERVICE, SOCKET)
    if drop_in is None or drop_in["unit"] not in units or _VARIANT.search(name) is not None or (
            _COPY.search(name) is not None or _UNIT_SECTION.search(text) is None):
        return None
    found = _ROOTED.match(path)
    return Kind(f"{SYSTEM_UNITS}/{drop_in['unit']}.d/{name}" if found is None or is_rootless else f"/{found['place']}",
                "unit", group if found is None else found["top"], is_rootless)


def kind_at(path: str) -> Kind:
    """Return the kind of a file that a unit refers to by its path on the host."""
    is_unit = path.startswith(f"{SYSTEM_UNITS}/")
    return Kind(path, "json" if path.endswith(".json") else "unit" if is_unit else "environment", "")


def is_policy(file: str, text: str) -> bool:
    """Whether a file is a policy of dockerd-guard: it has its keys, and no others."""
    keys = set(re.findall(r"^([A-Za-z_][\w-]{0,80})[ \t]{0,80}:", text, re.MULTILINE))
    return file.endswith((".yaml", ".yml")) and {"version", "sockets"} <= keys <= _KEYS_OF_POLICY


def is_of_first_boot(path: str) -> bool:
    """Whether cloud-init or Ignition may read a file of a tree at the first boot."""
    return re.search(r"/cloud|user-data|ignition|\.ign\Z", path) is not None


def is_deployed(path: str) -> bool:
    """Whether a file of a tree is, or makes, one of /etc when the tree is deployed: an image of ostree has /usr/etc."""
    return is_of_first_boot(path) or path.startswith("/usr/etc/")


def has_place(path: str) -> bool:
    """Whether the place of a file on a host is in its path: below a root directory or the home of an account."""
    # An image of ostree has /usr/etc in the place of /etc until it is deployed.
    return _ROOTED.match(path) is not None or _USER.match(path) is not None or "/.config/docker/" in path or (
        path.startswith("/usr/etc/"))


def _by_name(path: str, text: str, group: str, is_rootless: bool, is_named: bool) -> Kind | None:
    name = path.rpartition("/")[2]
    if (found := _DROP_IN.match(path)) is not None and found["name"].endswith(".conf") and _is_dockers(
            found["unit"], text):
        return Kind(f"{SYSTEM_UNITS}/{found['unit']}.d/{found['name']}", "unit", group, is_rootless)
    if name.endswith((".service", ".socket")) and _is_dockers(name, text):
        return Kind(f"{SYSTEM_UNITS}/{name}", "unit", group, is_rootless)
    if (name == "daemon.json" and not _is_of_another_program(path, text)) or (
            name.endswith(".json") and "daemon" in name and _DAEMON_KEYS.search(text)):
        place = f"{HOME}/.config/docker/daemon.json" if is_rootless else DAEMON_JSON
        return Kind(place, "json", group, is_rootless)
    if name.endswith(".toml") and ("containerd" in path or is_named) and _CONTAINERD_KEYS.search(text) is not None:
        return Kind(f"{CONTAINERD}config.toml", "environment", group)
    return None


def _is_dockers(name: str, text: str) -> bool:
    return "docker" in name or _DOCKERS.search(text) is not None


def _by_content(path: str, text: str, group: str, is_named: bool) -> Kind | None:
    """A file with a name of its own: by what only such a file contains."""
    name = path.rpartition("/")[2]
    mentions = is_named or _NAMES_DOCKER.search(path) is not None or _NAMES_DOCKER.search(text) is not None
    if (unit := _unit_of(name, text)) and mentions and not name.endswith(
            (*_NO_SETTINGS, *_UNITS)) and _QUADLET_DROP_IN.search(path) is None and (
            (drop_in := _DROP_IN.match(path)) is None or "docker" in drop_in["unit"]):
        if (whole := _WHOLE_UNIT.match(name)) is not None and "[Unit]" in text:
            return Kind(f"{SYSTEM_UNITS}/{whole[1]}", "unit", group)
        base = name if name.endswith(".conf") else f"{name}.conf"
        # A copy is judged by itself: what it sets is not in force, and takes nothing back.
        group = path if _COPY.search(name) is not None else group
        if re.search(r"(?:\A|/)dockerd?\.d/[^/]+\.conf\Z", path) is not None:
            # No unit has such a name, and a rule says so.
            return Kind(f"{SYSTEM_UNITS}/docker.d/{base}", "unit", group)
        return Kind(f"{SYSTEM_UNITS}/{unit}.d/{base}", "unit", group)
    if text.lstrip("\ufeff \t\r\n").startswith("{") and _DAEMON_KEYS.search(text) and (
            is_named or name.endswith(".json")) and '"services"' not in text:
        return Kind(DAEMON_JSON, "json", group)
    if (option := _OPTIONS.search(text)) is not None and not name.endswith(_NO_SETTINGS) and text[:2] != "#!" and (
            _NAMES_DOCKER.search(path) is not None or is_named) and _is_environment_file(path, text):
        place = "/etc/sysconfig/docker" if option[1] in _FEDORA or "sysconfig" in path else "/etc/default/docker"
        return Kind(place, "environment", group)
    return None


def _unit_of(name: str, text: str) -> str:
    """The unit that a drop-in is for, by its section, or by its settings; empty if it has none."""
    if (section := _UNIT_SECTION.search(text)) is not None:
        return SERVICE if section[1] == "Service" else SOCKET
    if not name.endswith(".conf") or (setting := _SETTING.search(text)) is None:
        return ""
    return SERVICE if setting[1] else SOCKET


def _is_environment_file(path: str, text: str) -> bool:
    """Whether a file with DOCKER_OPTS= is one of dockerd: by its path, or because it has assignments only, and flags
    that dockerd knows. Files for make and shells use the same names for arguments of `docker run`."""
    if _BUILD_FILE.search(path) is not None:
        return False
    if _ENVIRONMENT_FILE.search(path) is not None:
        return True
    known = options_of(None)
    # With -v, dockerd prints its version; `docker run` mounts a volume.
    return _COMMAND.search(text) is None and all(
        found[1] in known.by_name if found[1] else found[2] in known.by_letter and found[2] != "v"
        for option in islice(_OPTIONS.finditer(text), MAX_FLAGS)
        for found in islice(_FLAG.finditer(option[2]), MAX_FLAGS))


def _is_of_another_program(path: str, text: str) -> bool:
    """Whether a daemon.json has keys, and none that is dockerd's or similar to one."""
    if _NAMES_DOCKER.search(path) is not None:
        return False
    try:
        value = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return False
    from difflib import get_close_matches

    options = options_of(None)
    known = {*options.by_name, *options.keys, *options.fields, *UNCHECKED}
    keys = [key.lower() for key in value] if isinstance(value, dict) else []
    return bool(keys) and known.isdisjoint(keys) and not any(
        get_close_matches(key[:80], known, 1, 0.85) for key in keys[:MAX_KEYS])


def group_of(path: str) -> str:
    """The directory that a file belongs to with others. Tasks of Ansible belong to their role, as its templates do."""
    path = re.sub(r"(\A|/)(?:tasks|handlers)/(?:[^/]+/){0,8}(?=[^/]+\Z)", r"\1templates/", path)
    directory = re.sub(r"(?:\A|/)[^/]+\.(?:service|socket)\.d\Z", "", path.rpartition("/")[0])
    while directory.rpartition("/")[2] in _CONTAINERS:
        directory = directory.rpartition("/")[0]
    return directory
