"""`lint` of templates of YAML: Compose files and user data with tags of Jinja2, Go, ERB and Terraform."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time

pytest_plugins = ["tests.support.fixtures"]

A = "services:\n  a:\n    image: x\n"
SOCKET = "    volumes: ['/var/run/docker.sock:/s']\n"
PORT = "    ports: ['80:80']\n"

FOUND: dict[str, tuple[str, str, str]] = {
    "a comment": ("compose.yaml.j2", f"{A}{SOCKET}    {{# a: b #}}\n{PORT}", "6:14"),
    "a comment of several lines": ("compose.yaml.j2", f"{A}{SOCKET}{{# a:\n - b: #}}\n{PORT}", "7:14"),
    "a branch of ERB": ("docker-compose.yml.erb", f"{A}{SOCKET}<% if @expose %>\n{PORT}<% end %>\n", "6:14"),
    "a branch of Terraform": ("compose.yml.tftpl", f"{A}{SOCKET}%{{ if expose ~}}\n{PORT}%{{ endif }}\n", "6:14"),
    "a branch of Go": ("compose.yml.gotmpl", f"{A}{SOCKET}{{{{- if .Expose }}}}\n{PORT}{{{{- end }}}}\n", "6:14"),
    "the first branch": (
        "compose.yaml.j2", f"{A}{SOCKET}{{% if a %}}\n{PORT}{{% else %}}\n    ports: []\n{{% endif %}}\n", "6:14"),
    "the second branch": (
        "compose.yaml.j2", f"{A}{SOCKET}{{% if a %}}\n    ports: []\n{{% elif b %}}\n{PORT}{{% endif %}}\n", "8:14"),
    "a branch of a file that may be a template": (
        "templates/compose.yml", f"{A}{SOCKET}{{% if a %}}\n{PORT}{{% else %}}\n    ports: []\n{{% endif %}}\n",
        "6:14"),
    "alternatives of the network": (
        "compose.yaml.erb",
        f"{A}{SOCKET}<% if x %>\n    network_mode: host\n<% else %>\n    network_mode: none\n<% end %>\n", "6:19"),
    "tags in comments": (
        "compose.yaml", f"{A}{SOCKET}# {{% if a %}}\n    ports: []\n# {{% else %}}\n    x: 1\n# {{% endif %}}\n{PORT}",
        "10:14"),
    "an expression that begins a value": (
        "compose.yaml.j2", f"{A}{SOCKET}    ports:\n    - {{{{ ip }}}}:80:80\n", "6:7"),
    "an expression that begins a value of ERB": (
        "compose.yaml.erb", f"{A}{SOCKET}    ports:\n    - <%= @ip %>:80:80\n", "6:7"),
    "text that looks like a comment": (
        "compose.yaml", "services: {a: {image: '{#', volumes: ['/run/docker.sock:/s'], ports: ['80:80'], x: '#}'}}\n",
        "1:72"),
    "user data": (
        "user-data.yaml.j2", "#cloud-config\nwrite_files:\n{% if a %}\n- path: /opt/compose.yaml\n  content: |\n"
        + "".join(f"    {line}\n" for line in f"{A}{SOCKET}{PORT}".splitlines()) + "{% endif %}\n", "10:18"),
}
"""Name and text of a file, and where DG108 is."""

UNKNOWN: dict[str, tuple[str, str, str]] = {
    "a line": ("compose.yaml.j2", f"{A}{SOCKET}    {{{{ more }}}}\n", "5: the value of {{ more }} is not known"),
    "a file": ("compose.yaml.j2", f"{A}{SOCKET}    {{% include 'x' %}}\n", "5: the value of {% include 'x' %}"),
    "a line of ERB": ("compose.yaml.erb", f"{A}{SOCKET}    <%= @more %>\n", "5: the value of <%= @more %> is not"),
    "the ports": ("compose.yaml.erb", f"{A}{SOCKET}    ports: <%= @ports %>\n", "the value of its ports is not known"),
    "the network": ("compose.yaml.erb", f"{A}{SOCKET}    network_mode: '<%= @x %>'\n", "of its network_mode is not"),
    "not YAML": ("compose.yaml.j2", f"{A}{SOCKET}{{% if a %}}\n  :\n:{{% endif %}}\n", "not read: "),
}
"""Name and text of a file, and what is said."""

CLEAN: dict[str, tuple[str, str]] = {
    "a comment that Jinja removes": ("compose.yaml.j2", f"{A}{SOCKET}{{#\n{PORT}#}}\n"),
    "a macro": ("compose.yaml.j2", f"{{% macro p() %}}\n{PORT}{{% endmacro %}}\n{A}{SOCKET}"),
    "the socket or a port": (
        "compose.yaml.j2", f"{A}{{% if a %}}\n{SOCKET}{{% else %}}\n{PORT}{{% endif %}}\n"),
    "a tag of another language": ("compose.yaml.j2", f"{A}{SOCKET}    labels: ['<%= x %>']\n"),
}
"""Name and text of a file without a finding."""


def lint(directory: Path, call: Call, path: str, text: str) -> tuple[int, str]:
    (directory / path).parent.mkdir(exist_ok=True)
    (directory / path).write_text(text)
    said = call("lint", str(directory / path))
    return said.code, said.out + said.err


@pytest.mark.parametrize("name", FOUND)
def test_a_port_between_tags_is_found(name: str, tmp_path: Path, call: Call) -> None:
    path, text, place = FOUND[name]
    code, said = lint(tmp_path, call, path, text)
    assert code == 1 and f"{path}:{place}: error: " in said and said.count("[DG108]") == 1, said


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_named(name: str, tmp_path: Path, call: Call) -> None:
    path, text, expected = UNKNOWN[name]
    code, said = lint(tmp_path, call, path, text)
    assert code == 2 and expected in said, said


@pytest.mark.parametrize("name", CLEAN)
def test_what_a_template_does_not_output_is_no_port(name: str, tmp_path: Path, call: Call) -> None:
    code, said = lint(tmp_path, call, *CLEAN[name])
    assert code == 0, said


@pytest.mark.parametrize("line", ["{% if a %}\n{% else %}\n{% endif %}\n", "# {{ a }}\n", "{# a #}\n", "    {{ a }}\n"])
def test_long_templates_end_soon(line: str, tmp_path: Path, call: Call) -> None:
    def work() -> None:
        lint(tmp_path, call, "compose.yaml.j2", f"{A}{SOCKET}" + line * (250_000 // len(line)))

    check_cpu_time(work, 5)
