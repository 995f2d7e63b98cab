"""What stands in more than one file of the package says the same in each."""

from __future__ import annotations

import re
from pathlib import Path

import dockerd_guard
from dockerd_guard.policy import Mode, Policy, parse_policy

TOP = Path(__file__).resolve().parents[2]

EXAMPLE = (TOP / "config.example.yaml").read_text()


def test_the_changelog_has_the_version() -> None:
    first = (TOP / "packaging/debian/changelog").read_text().splitlines()[0]
    assert first.startswith(f"dockerd-guard ({dockerd_guard.__version__}) ")


def test_the_example_is_what_is_installed_observing_the_local_socket() -> None:
    policy = parse(EXAMPLE)
    assert policy.mode is Mode.OBSERVE
    assert [socket.address for socket in policy.sockets] == ["fd://"]


def test_the_example_shows_the_defaults() -> None:
    """Every optional section, uncommented, changes nothing; a window and a waiver have no default."""
    # "#key" and "#  key" are YAML; "# " begins a sentence, or another socket.
    all_of_it = re.sub(r"^#((?:  )*\S.*)$", r"\1", EXAMPLE, flags=re.MULTILINE)
    shown = parse(all_of_it)
    assert shown.waive
    assert shown.correct.window is not None
    window_removed = re.sub(r"^ *window:.*\n", "", all_of_it, flags=re.MULTILINE)
    defaults = parse("version: 1\nsockets: [fd://]\n")
    got = parse(window_removed)
    assert (got.mode, got.correct, got.watch) == (defaults.mode, defaults.correct, defaults.watch)
    assert got.tls[:3] == defaults.tls[:3]
    assert [each.address for each in got.socket_unit.listen] == \
        [each.address for each in defaults.socket_unit.listen]


def parse(text: str) -> Policy:
    return parse_policy(text.encode(), "config.example.yaml")
