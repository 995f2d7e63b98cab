"""`lint`: values that a template sets itself, and what is said of files that belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockerd_guard.observe import templates
from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time

pytest_plugins = ["tests.support.fixtures"]

START = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd "
TCP = "-H tcp://0.0.0.0:2375"

TEMPLATES: dict[str, tuple[str, str, int]] = {
    "Jinja": ("a.conf.j2", f'{{% set o = "{TCP}" %}}\n{START}{{{{ o }}}}\n', 1),
    "Jinja, trimmed": ("a.conf.j2", f"{{%- set o = '{TCP}' -%}}\n{START}{{{{ o -}}}}\n", 1),
    "Go": ("a.conf.tmpl", f'{{{{- $o := "{TCP}" -}}}}\n{START}{{{{ $o }}}}\n', 1),
    "ERB": ("a.conf.erb", f'<% o = "{TCP}" -%>\n{START}<%= o %>\n', 1),
    "an alternative": (
        "a.conf.j2", '{% if x %}{% set o = "" %}{% else %}{% set o = "'
                     f'{TCP}" %}}{{% endif %}}\n{START}{{{{ o }}}}\n', 1),
    "a harmless value": ("a.conf.j2", f'{{% set o = "-H fd://" %}}\n{START}{{{{ o }}}}\n', 0),
    "a value that is extended": (
        "a.conf.j2", f'{{% set o = "-H fd://" %}}\n{{% set o = o ~ x %}}\n{START}{{{{ o }}}}\n', 2),
    "a value that is changed": ("a.conf.tmpl", f'{{{{ $o := "" }}}}\n{{{{ $o = .Host }}}}\n{START}{{{{ $o }}}}\n', 2),
    "a loop over other values": (
        "a.conf.j2", f'{{% set o = "" %}}\n{START}{{% for o in x %}}{{{{ o }}}}{{% endfor %}}\n', 2),
    "a block": ("a.conf.j2", f'{{% set o = "" %}}\n{{% set o %}}{{{{ x }}}}{{% endset %}}\n{START}{{{{ o }}}}\n', 2),
}
"""Name and text of a drop-in, and the exit code."""


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_variable_that_the_template_sets(name: str, tmp_path: Path, call: Call) -> None:
    file, text, code = TEMPLATES[name]
    write(tmp_path, {f"docker.service.d/{file}": text})
    said = call("lint", tmp_path)
    assert said.code == code, said.out + said.err
    assert ("tcp://0.0.0.0:2375" in said.out) == (code == 1)


@pytest.mark.parametrize("text", [
    "{{ with a }}", '{% if a %}{% set b = "c" %}', "{% set a %}", '{{ $a := "b" }}{{ $a }}'])
def test_long_templates_end_soon(text: str) -> None:
    def work() -> None:
        templates.renderings("a.conf.j2", (text * 100_000)[:1 << 20], "unit")

    check_cpu_time(work, 2)


def test_a_drop_in_belongs_to_the_unit_beside_it(tmp_path: Path, call: Call) -> None:
    write(tmp_path, {"a/dockerd.service": "[Service]\nExecStart=/usr/bin/dockerd\n",
                     "a/dockerd.service.d/a.conf": "[Service]\nEnvironment=A=b\n"})
    said = call("lint", tmp_path)
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.out


def test_a_service_without_a_known_name(tmp_path: Path, call: Call) -> None:
    write(tmp_path, {"compose.yml.j2": "services:\n  {{ n }}:\n    ports: ['80:80']\n"
                                       "    volumes: ['/run/docker.sock:/x']\n"})
    assert "error: a container mounts the API socket" in call("lint", tmp_path).out


def test_a_directory_with_an_address_is_not_called_empty(tmp_path: Path, call: Call) -> None:
    write(tmp_path, {"a.sh": f"dockerd {TCP}\n"})
    said = call("lint", tmp_path)
    assert said.code == 2 and "a.sh:1: names a TCP address" in said.err and "contains no" not in said.err


def write(here: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)
