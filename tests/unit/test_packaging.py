"""Files of the package that state the same fact agree."""

from __future__ import annotations

import hashlib
import re
import runpy
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

import dockerd_guard
from dockerd_guard.observe import file_kinds
from dockerd_guard.observe.layouts import FOREIGN_DAEMON_JSON, QNAP_DAEMON_JSON
from dockerd_guard.observe.misnamed import is_near_daemon_json
from dockerd_guard.observe.stock_units import ENVIRONMENT_FILES
from dockerd_guard.observe.template_tags import SUFFIXES
from dockerd_guard.policy.keys import KEYS
from dockerd_guard.policy.model import Fleet, Mode, Policy
from dockerd_guard.policy.reader import parse_policy

pytestmark = pytest.mark.libraries

TOP = Path(__file__).resolve().parents[2]

EXAMPLE = (TOP / "config.example.yaml").read_text()
INSTALLED = (TOP / "packaging/config.yaml").read_text()
INSTALLED_SHA256 = "4d9fd9953aed8158d5d16eb416be7e23d17954d78fad47d83e2e4379dfe5ff42"


def test_the_files_have_one_version() -> None:
    """0.2.0.dev0 is before 0.2.0, which Debian writes with ~, and is not released."""
    release, is_development, number = dockerd_guard.__version__.partition(".dev")
    changelog = (TOP / "packaging/debian/changelog").read_text().split("\n")[0]
    news = re.findall("^## (.*)$", (TOP / "NEWS.md").read_text(), re.MULTILINE)
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", release)
    if is_development:
        assert changelog == f"dockerd-guard ({release}~dev{number}) UNRELEASED; urgency=medium"
        assert news[0] == f"{release} (unreleased)"
    else:
        assert changelog == f"dockerd-guard ({release}) unstable; urgency=medium"
        assert re.fullmatch(rf"{re.escape(release)}(?: \([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}\))?", news[0])
    assert not any("unreleased" in heading for heading in news[1:])


@pytest.mark.parametrize("text", [INSTALLED, EXAMPLE], ids=["installed", "example"])
def test_it_observes_the_local_socket(text: str) -> None:
    policy = parse(text)
    assert policy.mode is Mode.OBSERVE
    assert [socket.address for socket in policy.sockets] == ["fd://"]


def test_the_installed_policy_never_changes() -> None:
    """dpkg asks about a conffile that both sides changed, and everybody changes this one: an unattended
    upgrade would stop there. What is new goes into the example, the man page and the defaults."""
    assert hashlib.sha256(INSTALLED.encode()).hexdigest() == INSTALLED_SHA256


def test_the_example_shows_the_defaults() -> None:
    """Every optional section, uncommented, changes nothing; a window, a fleet and a waiver have no default."""
    # "#key" and "#  key" are YAML; "# " begins a sentence, or another socket.
    all_of_it = re.sub(r"^#((?:  )*\S.*)$", r"\1", EXAMPLE, flags=re.MULTILINE)
    shown = parse(all_of_it)
    assert shown.waive
    assert shown.correct.window is not None
    window_removed = re.sub(r"^ *window:.*\n", "", all_of_it, flags=re.MULTILINE)
    defaults = parse("version: 1\nsockets: [fd://]\n")
    got = parse(window_removed)
    fleet = got.correct.fleet
    assert fleet is not None
    assert fleet == Fleet(fleet.lock, fleet.endpoints, fleet.group, tls=fleet.tls)
    got = got._replace(correct=got.correct._replace(fleet=None))
    assert (got.mode, got.correct, got.watch) == (defaults.mode, defaults.correct, defaults.watch)
    assert got.tls[:3] == defaults.tls[:3]
    assert [each.address for each in got.socket_unit.listen] == \
        [each.address for each in defaults.socket_unit.listen]


def test_the_example_has_every_key() -> None:
    shown = set(re.findall(r"^[# ]*(?:- )?(\w+):(?= |$)", EXAMPLE, flags=re.MULTILINE))
    assert {key.word for key in KEYS} <= shown


def test_the_table_of_keys_in_the_docs_is_current() -> None:
    """Otherwise run `PYTHONPATH=. python3 packaging/policy_table.py`."""
    page = (TOP / "docs/policy.md").read_text()
    assert runpy.run_path(str(TOP / "packaging/policy_table.py"))["page"](page) == page


HOOK = yaml.safe_load((TOP / ".pre-commit-hooks.yaml").read_text())[0]


def starts_the_hook(path: str) -> bool:
    return re.search(HOOK["files"], path) is not None and re.search(HOOK["exclude"], path) is None


@pytest.mark.parametrize("path", [
    "docker.service", "lib/systemd/system/docker.socket", "units/dind.service", "user/engine.socket",
    "etc/systemd/system/docker.service.d/10-tcp.conf", "files/limits.conf", "roles/x/templates/override.conf.j2",
    "daemon.json", "files/deamon.json", "daemon.jsn", "x/daemons.json", "daemon.json.txt",
    "roles/x/templates/daemon.json.j2", "etc/docker/engine.json", "etc/docker-daemon-prod.json",
    "etc/default/docker", "etc/sysconfig/docker-storage", "docker.env", "home/a/.config/docker/daemon.json",
    "home/a/.config/systemd/user/docker.service.d/x.conf", "user-data", "cloud-init/user-data.tftpl", "x/cloud.cfg",
    "node.bu", "node.ign", "node.fcc", "ignition/node.json", "compose.yaml", "docker-compose.prod.yml", "stack.yml",
    "roles/x/tasks/main.yml", "k8s/configmap.yaml", "policy.yaml",
    "etc/systemd/system/app.container", "app/s.volume", "lan.network", "app/.env",
])
def test_files_of_the_docs_start_the_hook(path: str) -> None:
    """docs/lint.md has the table. Names of any case, and with a suffix of templates."""
    for name in (path, path.upper(), *(path + suffix for suffix in SUFFIXES)):
        assert starts_the_hook(name), name


@pytest.mark.parametrize("path", ["main.tf", "node.pkr.hcl", "setup.sh", "provision.sh.tpl", "configuration.nix",
                                  "a.nomad", ".devcontainer/devcontainer.json", "Vagrantfile",
                                  "docker/pillar.sls", "manifests/init.pp", "recipes/default.rb", "lib.bash",
                                  "etc/caddy/Caddyfile", "haproxy.cfg", "cloud.cfg.d/9.cfg", "frpc.ini",
                                  "renovate.json5", "k.jsonnet", "main.tofu", "Makefile",
                                  "etc/crontab", "rc.local", "app.build", "app.image", "app.kube",
                                  "salt/init.sls.j2"])
def test_scripts_that_may_set_a_host_start_the_hook(path: str) -> None:
    assert starts_the_hook(path)


def slips(name: str) -> set[str]:
    """The names at one slip from this one."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    halves = [(name[:place], name[place:]) for place in range(len(name) + 1)]
    return {
        *(start + end[1:] for start, end in halves if end),
        *(start + end[1] + end[0] + end[2:] for start, end in halves if len(end) > 1),
        *(start + letter + end[1:] for start, end in halves if end for letter in letters),
        *(start + letter + end for start, end in halves for letter in letters)}


def looked_into() -> set[str]:
    """Paths that lint looks into, made from its tables: the words in names and in those of directories, the ends of
    names, places on a host, and each name that it takes for a misspelled daemon.json."""
    misspelled = {name for slip in ("daemon.json", *slips("daemon.json"), *slips("daemon_json"))
                  for name in (slip, f"{slip}.txt") if is_near_daemon_json(name)}
    assert len(misspelled) > 1000
    return {
        *file_kinds.NAMES, *(f"{way}{name}{way}" for name in file_kinds.NAMES for way in ("x", "-", ".")),
        *(f"{name}/x" for name in file_kinds.NAMES), *(f"a/x{name}x/x.y" for name in file_kinds.NAMES),
        *(f"x{end}" for end in file_kinds.ENDS), *(f"a/b/x.y{end}" for end in file_kinds.ENDS),
        "daemon-x.json", "xdaemon.json", "daemon.x.json", "daemons/x.json", "a/daemon-x/y.json",
        "daem.js", "demons.jnosa.txt", "x/dnomea.json", *misspelled,
        *(path.lstrip("/") for path in (*FOREIGN_DAEMON_JSON, QNAP_DAEMON_JSON % "x", *ENVIRONMENT_FILES)),
        *(f"etc/systemd/system/{unit}.d/{name}" for unit in ("docker", "dockerd.service", "docker.socket")
          for name in ("x.conf", "x.cnf", "x", "x.conf.bak"))}


def test_every_name_that_lint_looks_into_starts_the_hook() -> None:
    """Also in capitals, and with suffixes of templates."""
    names = looked_into()
    assert {path for path in names if not file_kinds.is_looked_into(Path(path).parent.name, Path(path).name)} == set()
    spelled = {*names, *(name.upper() for name in names), *(name + suffix for name in names for suffix in SUFFIXES),
               *(f"{name}.j2.in" for name in names)}
    assert sorted(name for name in spelled if not starts_the_hook(name)) == []


@pytest.mark.parametrize("path", [
    "README.md", "src/x/client.py", "package.json", "go.sum", "tests/docker/data/x.py", "dockerd-guard/config.yaml",
    "overlay/etc/dockerd-guard/config.yaml", "dockerd-guard/web.yml", "service", "conf",
])
def test_other_files_do_not_start_the_hook(path: str) -> None:
    assert not starts_the_hook(path)


def test_args_of_a_user_keep_what_the_hook_needs() -> None:
    """pre-commit replaces `args`, and not `entry`."""
    assert {"--no-host", "--allow-empty"} <= set(HOOK["entry"].split()) and "args" not in HOOK


def parse(text: str) -> Policy:
    return parse_policy(text.encode(), "config.example.yaml")


def test_the_oldest_libraries_are_tested() -> None:
    """`make unit` tests with the lower bounds of setup.cfg; pystemd is tested on Debian's releases only."""
    setup = ConfigParser()
    setup.read(TOP / "setup.cfg")
    lines = setup["options"]["install_requires"] + setup["options.extras_require"]["agent"]
    required = re.findall(r"^(\w+)>=(\S+)$", lines, re.MULTILINE)
    pinned = (TOP / "tests/requirements-oldest.in").read_text()
    assert [name for name, _ in required] == ["PyYAML", "pystemd", "structlog", "watchdog"]
    assert [f"{name}=={version}" for name, version in required
            if not re.search(rf"^{name}=={re.escape(version)}(;|$)", pinned, re.MULTILINE)] == ["pystemd==0.11"]
