"""`lint` of templates: which tags a file has, what they remove, and what stands between them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from dockerd_guard.observe import templates
from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time

pytest_plugins = ["tests.support.fixtures"]

OPEN = "ExecStart=\nExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2375\n"
ESCAPED = OPEN.replace("\n", "\\n")
HEADER = ("#jinja2: block_start_string:'[%', block_end_string:'%]', "
          "comment_start_string: '[#', comment_end_string: '#]'\n")


def between(begin: str, end: str, first: str = "") -> str:
    """A drop-in that opens dockerd between two lines."""
    return f"{first}[Service]\n{begin}\n{OPEN}{end}\n"


def command(*lines: str) -> str:
    """A drop-in with an ExecStart= of several lines."""
    return "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// \\\n" + "\n".join(lines) + "\n"


TCP = "  -H tcp://0.0.0.0:2375"

SAFE = "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd://\n"
CHART = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  daemon.json: |\n    {}\n"

FOUND: dict[str, tuple[str, str, str]] = {
    # The tags of another language are text.
    "Jinja in a file of autoconf": ("o.conf.in", between("#{%", "#%}"), "4:31"),
    "a comment of Jinja in a file of autoconf": ("o.conf.in", between("#{#", "#}"), "4:31"),
    "ERB in Jinja": ("o.conf.j2", between("#<%", "#%>"), "4:31"),
    "Terraform in Jinja": ("o.conf.j2", between("#%{ x", "#}"), "4:31"),
    "Jinja in ERB": ("o.conf.erb", between("#{#", "##}"), "4:31"),
    "Jinja in EPP": ("o.conf.epp", between("#{%", "#%}"), "4:31"),
    "Jinja in Go": ("o.conf.gotmpl", between("#{#", "##}"), "4:31"),
    "Jinja in Terraform": ("o.conf.tftpl", between("#{#", "##}"), "4:31"),
    # One suffix of several languages.
    "Jinja in what may be Go": ("o.conf.tmpl", between("#{#", "##}"), "4:31"),
    "Jinja in what may be Terraform": ("o.conf.tpl", between("#{#", "##}"), "4:31"),
    "ERB in what may be anything": ("o.conf.template", between("#<%", "#%>"), "4:31"),
    "a comment of JSON in no template": (
        "daemon.json", '{"log-opts": {"tag": "${A}{#"},\n"hosts": ["tcp://0.0.0.0:2375"], "labels": ["a=#}"]}', "2:12"),
    # What the language itself says is text.
    "tags that the first line changes": ("o.conf.j2", between("#{#", "##}", HEADER), "5:31"),
    "a changed beginning alone": ("o.conf.j2", between("#{#", "##}", "#jinja2: comment_start_string:'<#'\n"), "5:31"),
    "raw text of Jinja": ("o.conf.j2", between("#{% raw %}{#{% endraw %}", "#{% raw %}#}{% endraw %}"), "4:31"),
    "raw text of Jinja, trimmed": ("o.conf.j2", between("#{%- raw -%}{# {%- endraw %}", "# #}"), "4:31"),
    "a tag in raw text": ("o.conf.j2", between("#{% raw %}{{", "#}}{% endraw %}"), "4:31"),
    "an escaped tag of ERB": ("o.conf.erb", between("#<%%", "#%>"), "4:31"),
    "an escaped tag of Terraform": ("o.conf.tftpl", between("#$${", "#}"), "4:31"),
    # A text is what it outputs.
    "a text of several lines": ("o.conf.j2", between("# {{ '", "' }}"), "4:31"),
    "a text with line breaks": (
        "o.conf.j2", f'[Service]\nLimitNOFILE={{{{ "1\\n{ESCAPED}" }}}}\n', "2:56"),
    "a text of Go": ("o.conf.gotmpl", f'[Service]\nLimitNOFILE={{{{ `1\n{OPEN}` }}}}\n', "4:31"),
    "a text of ERB": ("o.conf.erb", f"[Service]\nLimitNOFILE=<%= '1\n{OPEN}' %>\n", "4:31"),
    "a text in JSON": ("daemon.json.j2", """{"data-root": "{{ '/x", "hosts": ["0.0.0.0:4243"], "y": "' }}"}""", "1:36"),
    # A tag that is alone on a line vanishes with it.
    "an option in a branch": ("o.conf.j2", command("{% if a %}", f"{TCP} \\", "{% endif %}", "  --debug"), "5:6"),
    "an option after a branch": ("o.conf.j2", command("{% if a %}", "  --debug \\", "{% endif %}", TCP), "7:6"),
    "an option after a branch that is dropped": (
        "o.conf.j2", command("{% if a %}", "  --debug \\", "{% else %}", f"{TCP} \\", "{% endif %}", "  --icc"), "7:6"),
    "an option after a comment": ("o.conf.j2", command("{# api #}", TCP), "5:6"),
    "an option after a comment of several lines": ("o.conf.j2", command("{# a", "b #}", TCP), "6:6"),
    "an option after an indented tag": ("o.conf.jinja", command("  {% set a = b %}", TCP), "5:6"),
    "an option after a tag of Go": ("o.conf.tmpl", command("{{- if .A }}", TCP, "{{- end }}"), "5:6"),
    "an option after a tag of ERB": ("o.conf.erb", command("<% if @a -%>", TCP, "<% end -%>"), "5:6"),
    "an option after a tag of Terraform": ("o.conf.tftpl", command("%{ if a ~}", TCP, "%{ endif ~}"), "5:6"),
    "a tag that joins lines": (
        "o.conf.j2", f"[Service]\nExecStart=\nExecStart=/usr/bin/dockerd\n{{%- if a %}}{TCP}{{% endif %}}\n",
        "4:17"),
    "an address of autoconf": ("o.conf.in", SAFE.replace("fd://", "tcp://@IP@:@PORT@"), "3:31"),
    "a port of Helm": (
        "helm/templates/cm.yaml", CHART.format('{"hosts": ["tcp://0.0.0.0:{{ .Values.port }}"]}'), "7:17"),
    "an address of Helm": (
        "helm/templates/cm.yaml", CHART.format('{"hosts": ["tcp://{{- $.Values.ip -}}:2375"]}'), "7:17"),
    "a comment line before a trimmed tag of no template": (
        "docker.service.d/o.conf", between("# {% if a -%}", "# {%- endif %}"), "4:31"),
}
"""Name and text of a file, and where DG103 is."""


@pytest.mark.parametrize("name", FOUND)
def test_an_address_between_tags_is_found(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text, place = FOUND[name]
    write(tmp_path, {path: text})
    monkeypatch.chdir(tmp_path)
    said = call("lint", path, "--format", "json")
    found = [f"{each['line']}:{each['column']}" for each in said.json["findings"] if each["code"] == "DG103"]
    assert (said.code, found) == (1, [place]), said.out + said.err


CLEAN: dict[str, tuple[str, str]] = {
    "a comment of Jinja": ("o.conf.j2", SAFE + f"{{#\n{OPEN}#}}\n"),
    "a comment of Jinja with other marks": ("o.conf.j2", HEADER + SAFE + f"[#\n{OPEN}#]\n"),
    "a comment of ERB": ("o.conf.erb", SAFE + f"<%#\n{OPEN}%>\n"),
    "a comment of Go": ("o.conf.gotmpl", SAFE + f"{{{{/*\n{OPEN}*/}}}}\n"),
    "a branch within a command": (
        "docker.service.j2", "[Service]\nExecStart=/usr/bin/dockerd \\\n{% if a is defined %}\n    $DOCKER_OPTS \\\n"
        "{% endif %}\n    $OTHERS \\\n    $MORE\n"),
    **{f"comments: {tag}": ("o.conf.j2", f"{tag}\n{SAFE}") for tag in (
        "{{ ansible_managed | comment }}", "{{ansible_managed|comment('c')}}", '{{ note | comment("cblock") }}')},
    "comments within a command": (
        "o.conf.j2", "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd \\\n{{ a | comment }}\n  -H fd://\n"),
    "a directory of commands": ("o.conf.j2", SAFE.replace("/usr/bin/", "{{ docker_bin_dir }}/")),
    "a directory of commands of Go": ("o.conf.gotmpl", SAFE.replace("/usr/bin/", "-{{ .Prefix }}/bin/")),
    "a directory of commands of autoconf": ("o.conf.in", SAFE.replace("/usr/bin/", "@bindir@/")),
    "a variable of autoconf": ("o.conf.in", f"{SAFE}Environment=PATH=@bindir@:@sbindir@\n"),
    "values of Helm": ("helm/templates/cm.yaml", CHART.format(
        '{"mtu": {{ .Values.mtu }}, "dns": {{ .Values.dns | toJson }}, "debug": {{ .Values.debug }}}')),
    "dockerd's own templates": ("helm/templates/cm.yaml", CHART.format('{"log-opts": {"tag": "{{ .Name }}"}}')),
    **{f"the tag of a log: {tag}": ("docker.service.d/o.conf", SAFE.replace("fd://", f'fd:// --log-opt tag="{tag}"'))
       for tag in ("{{ index .Name 1 }}", "{{upper .ImageName}}/{{.ID}}", "{{- printf `%%.8s` .FullID -}}")},
    "the tag of a log in daemon.json": ("daemon.json", '{"log-opts": {"tag": "{{ index .Name 1 }}"}}'),
    "a macro that is not called": ("o.conf.j2", f"{{% macro m(h) %}}\n{OPEN}{{% endmacro %}}\n{SAFE}"),
}
"""Name and text of a file without a finding."""


@pytest.mark.parametrize("name", CLEAN)
def test_what_a_template_does_not_output_is_no_finding(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = CLEAN[name]
    write(tmp_path, {path: text})
    monkeypatch.chdir(tmp_path)
    said = call("lint", path)
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.out + said.err


JSON: dict[str, str] = {
    "a loop with commas":
        '{"registry-mirrors": [{% for m in x %}"{{ m }}"{% if not loop.last %},{% endif %}{% endfor %}]}',
    "a loop with commas before": '{"dns": [{% for m in x %}{{ ", " if not loop.first }}"{{ m }}"{% endfor %}]}',
    "a list in a branch": '{ {% if a %}"registry-mirrors": ["{{ m }}"],{% endif %} "mtu": {{ mtu }}}',
    "joined elements": """{"dns": ["{{ dns | join('", "') }}"], "labels": [{{ labels | join(', ') }}]}""",
    "registries and ports":
        '{"insecure-registries": ["{{ host }}:{{ port }}"],\n"registry-mirrors": ["{{ s }}://{{ h }}"]}',
    "networks": '{"bip": "{{ bip }}", "fixed-cidr": "{{ net }}/{{ size }}", "fixed-cidr-v6": "{{ v6 }}"}',
    "parts of networks":
        '{"bip": "{{ a }}.1/24",\n"fixed-cidr": "172.{{ a }}.{{ b }}.0/{{ c }}", "ip": "{{ a }}.{{ b }}.0.1"}',
    "pools": '{"default-address-pools": [{"base": "{{ base }}", "size": {{ size }}}]}',
    "names of modes":
        '{"log-level": "{{ a }}", "default-ipc-mode": "{{ b }}",\n"default-cgroupns-mode": {{ c | to_json }}}',
    "maps":
        '{"features": {"buildkit": {{ b }}},\n"default-ulimits": {"a": {"Hard": {{ h }}, "Soft": {{ s }}}}}',
    "metrics": '{"metrics-addr": "{{ ip }}:{{ port }}", "exec-opts": ["native.cgroupdriver={{ d }}"]}',
}
"""Templates of daemon.json of which no value decides where dockerd listens."""


@pytest.mark.parametrize("name", JSON)
def test_values_of_other_keys_decide_nothing(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    terraform = re.sub(r"\{\{ (.*?) \}\}", r"${\1}", JSON[name]).replace("{%", "%{").replace("%}", "~}")
    for path, text in (("daemon.json.j2", JSON[name]), ("daemon.json.tftpl", terraform)):
        write(tmp_path, {path: text})
        said = call("lint", path)
        assert (said.code, said.out) == (0, "nothing wrong\n"), said.out + said.err


def test_the_expressions_of_what_cannot_be_read_are_named(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"daemon.json.j2": '{"mtu": 1{{ a }} {{ b }} "x": 2}'})
    assert "daemon.json.j2: render it for a host and judge the result: `dockerd-guard lint - --stdin-filename " in call(
        "lint", "daemon.json.j2").err
    assert "daemon.json.j2: this template cannot be read without its values: {{ a }}, {{ b }}\n" in call(
        "lint", "daemon.json.j2").err


@pytest.mark.parametrize(("name", "text", "result", "code"), [
    ("daemon.json.j2", "{{ docker_config | to_json }}", '{"hosts": ["tcp://0.0.0.0:2375"]}', 1),
    ("roles/a/templates/daemon.json.j2", "{{ docker_config | to_json }}\n", '{"live-restore": true}', 0),
    ("daemon.json.tftpl", "${jsonencode(config)}", '{"hosts": ["tcp://0.0.0.0:2375"]}', 1),
    ("etc/docker/daemon.json", "{{ config | to_json }}", '{"hosts": ["tcp://0.0.0.0:2375"]}', 1),
    ("docker.service.d/a.conf.j2", "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd {{ options }}\n",
     f"[Service]\n{OPEN}", 1)])
def test_a_template_that_is_a_value_is_judged_when_it_is_rendered(  # noqa: PLR0913, PLR0917 -- a row and fixtures
    name: str, text: str, result: str, code: int, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {name: text})
    said = call("lint", ".")
    assert said.code == 2 and said.err.count("render it for a host and judge the result") == 1, said.err
    step = re.search("`dockerd-guard (lint - --stdin-filename [^ ]+) < RESULT`", said.err)
    assert step is not None
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(result.encode())))
    assert call(*step[1].split()).code == code


UNKNOWN: dict[str, tuple[str, str, str]] = {
    "an option of the first line": (
        "o.conf.j2", f"#jinja2: line_statement_prefix:'#'\n{SAFE}", "#jinja2: line_statement_prefix:'#'"),
    "a default with line breaks": (
        "o.conf.j2", SAFE + 'LimitNOFILE={{ n | default("1\\nExecStart=x") }}\n',
        '{{ n | default("1\\nExecStart=x") }}'),
    "a default with a key": (
        "daemon.json.j2", """{"data-root": "{{ r | default('/x", "hosts": ["0.0.0.0:1"], "y": "') }}"}""",
        """{{ r | default('/x", "hosts": ["0.0.0.0:1"], "y": "') }}"""),
    "comments without marks": (
        "o.conf.j2", f"{{{{ a | comment(decoration='') }}}}\n{SAFE}", "{{ a | comment(decoration='') }}"),
    "a comment that is changed": ("o.conf.j2", f"{{{{ a | comment | b }}}}\n{SAFE}", "{{ a | comment | b }}"),
    "a command": ("o.conf.j2", SAFE.replace("/usr/bin/dockerd", "{{ dockerd }}"), "{{ dockerd }}"),
    "an argument of autoconf": ("o.conf.in", SAFE.replace("fd://", "fd:// @DOCKER_ARGS@"), "@DOCKER_ARGS@"),
    "a value beside the tag of a log": (
        "docker.service.d/o.conf", SAFE.replace("fd://", "fd:// --log-opt 'tag={{.ID}} {{ lower .ID }}' {{ x }}"),
        "{{ x }}"),
    "a field of no log": ("docker.service.d/o.conf", SAFE.replace("fd://", "fd:// {{ index .Hosts 1 }}"),
                          "{{ index .Hosts 1 }}"),
    "the field of a template": ("o.conf.tmpl", SAFE.replace("fd://", "fd:// {{ index .Name 1 }}"),
                                "{{ index .Name 1 }}"),
    "a macro that sets the command": (
        "o.conf.j2", '{% macro m(h) %}\nExecStart={{ h }}\n{% endmacro %}\n[Service]\nExecStart=\n{{ m("x") }}\n',
        '{{ m("x") }}'),
    "a macro anywhere": (
        "o.conf.j2", f"{{% macro m() %}}\n{OPEN}{{% endmacro %}}\n{SAFE}LimitNOFILE={{{{ m() }}}}\n", "{{ m() }}"),
    "a macro without an end": ("o.conf.j2", f"{SAFE}{{% macro m() %}}\n{OPEN}", "a definition without an end"),
    "a block anywhere": (
        "o.conf.j2", f"{{% set b %}}\n{OPEN}{{% endset %}}\n{SAFE}LimitNOFILE={{{{ b }}}}\n", "{{ b }}"),
    "a template of Go anywhere": (
        "o.conf.gotmpl", f'{{{{ define "x" }}}}\n{OPEN}{{{{ end }}}}\n{SAFE}LimitNOFILE={{{{ template "x" }}}}\n',
        '{{ template "x" }}'),
    "a tag that joins a comment and a setting": (
        "o.conf.j2", f"{SAFE}# {{% if a %}}\nEnvironmentFile=/x\n", "{% if a %}"),
    "a tag that joins two settings": (
        "o.conf.j2", f"{SAFE}LogExtraFields=a \\\n{{# a #}}\nEnvironmentFile=/x\n", "{# a #}"),
    "an expression that takes in settings": ("o.conf.j2", f"{SAFE}# {{{{ x(\n{OPEN}) }}}}\n", "{{ x( "),
}
"""Name and text of a file, and the expression that may decide where dockerd listens."""


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_may_decide_is_named(name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text, expression = UNKNOWN[name]
    write(tmp_path, {path: text})
    monkeypatch.chdir(tmp_path)
    said = call("lint", path)
    assert (said.code, said.out) == (2, "nothing wrong in what could be observed\n"), said.err
    assert f"the value of {expression}" in said.err and "it decides where dockerd listens" in said.err


@pytest.mark.parametrize("text", [
    "{{ x\nExecStart=\n", "{% raw %}", "{%- a -%}\n", "{{ 'a' }}", "{# a #}\n", "{% macro a() %}", "<%%", '{{ "\\"',
    "@a@", "{% if a %}{% else %}", "{{ \"hosts\": "])
@pytest.mark.parametrize("name", ["a.conf.j2", "a.conf.tpl", "a.conf.in", "daemon.json"])
def test_long_templates_are_read_in_linear_time(text: str, name: str) -> None:
    def work() -> None:
        templates.render(name, (text * 300_000)[:(1 << 20) - 4] + "}}%}", "json" if name.endswith("json") else "unit")

    check_cpu_time(work, 2)


TASK = """- copy:
    dest: /etc/systemd/system/docker.service.d/override.conf
    content: |
      [Service]
      ExecStart=
      ExecStart=/usr/bin/dockerd
"""
HOSTS = '{"hosts": ["fd://", "unix:///run/x.sock"]}'


@pytest.mark.parametrize(("files", "code"), [
    ({"roles/docker/tasks/main.yml": TASK, "roles/docker/templates/daemon.json.j2": HOSTS}, 0),
    ({"roles/docker/tasks/debian/a.yaml": TASK, "roles/docker/templates/daemon.json.j2": HOSTS}, 0),
    ({"tasks/main.yml": TASK, "templates/daemon.json.j2": HOSTS}, 0),
    ({"roles/a/handlers/main.yml": TASK, "roles/a/files/daemon.json": HOSTS}, 0),
    ({"roles/a/tasks/main.yml": TASK, "roles/b/templates/daemon.json": HOSTS}, 1),
    ({"roles/a/files/user-data": "#cloud-config\nwrite_files:\n- path: /etc/docker/daemon.json\n"
                                 f"  content: '{HOSTS}'\n", "roles/a/tasks/main.yml": TASK}, 1),
])
def test_what_tasks_write_belongs_to_their_role(
    files: dict[str, str], code: int, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".")
    assert said.code == code and ("[DG201]" in said.out) == (code == 1), said.out + said.err
    if code == 0:
        assert call("lint", *files).code == 0


def write(here: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)
