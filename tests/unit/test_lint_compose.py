"""`lint` of Compose files and containers of Podman: what several of them, and `.env`, make of a service."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockerd_guard.observe.compose_variables import interpolated, variables_of
from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time

pytest_plugins = ["tests.support.fixtures"]

SOCKET, PORT = "volumes: ['/run/docker.sock:/s']", "ports: ['80:80']"
A = "services:\n  a:\n    "
C, OVERRIDE = "compose.yaml", "compose.override.yaml"
BASE = f"{A}{SOCKET}\n    {PORT}\n"
BIND = "driver_opts: {type: none, o: bind, device"
DIND = "services:\n  d:\n    image: docker:27-dind\n    environment: {DOCKER_TLS_CERTDIR: ''}\n    "
QUADLET = "[Container]\nImage=x\n"

Files = dict[str, str]

FOUND: dict[str, tuple[Files, str]] = {
    "a secret": ({C: f"{A}{PORT}\n    secrets: [s]\nsecrets: {{s: {{file: /var/run/docker.sock}}}}\n"}, f"{C}:3:14"),
    "a config that is a directory": (
        {C: f"{A}{PORT}\n    configs: [{{source: s, target: /x}}]\nconfigs: {{s: {{file: /run/}}}}\n"}, f"{C}:3:14"),
    "a secret of the override": (
        {C: f"{A}{PORT}\n    secrets: [s]\n", OVERRIDE: "secrets: {s: {file: /}}\n"}, f"{C}:3:14"),
    **{f"a volume of {path}": ({C: f"{A}{PORT}\n    volumes: ['v:/x']\nvolumes: {{v: {{{BIND}: {path}}}}}}}\n"},
                               f"{C}:3:14")
       for path in ("/run", "/", "/var/run/", "/var/run/docker.sock", "/run/podman", "/run/../run")},
    "a volume of the override": (
        {C: f"{A}{PORT}\n    volumes: [{{type: volume, source: v}}]\n", OVERRIDE: f"volumes: {{v: {{{BIND}: /}}}}}}\n"},
        f"{C}:3:14"),
    "a volume of another driver": (
        {C: f"{A}{PORT}\n    volumes: ['v:/x']\nvolumes: {{v: {{driver_opts: {{mountpoint: /run}}}}}}\n"}, f"{C}:3:14"),
    "a path with dots": ({C: f"{A}{PORT}\n    volumes: ['//var/./run/:/x']\n"}, f"{C}:3:14"),
    **{f"a mount of {path}": ({C: f"{A}{PORT}\n    volumes: ['{path}:/x']\n"}, f"{C}:3:14") for path in (
        "/run/user/1000", "/var/run/user/0/podman", "../../../../../../var/run", "../../../run/docker.sock",
        "/run/host-services/docker.proxy.sock")},
    "a protocol in capitals": (
        {C: f"{A}{SOCKET}\n    ports: [{{target: 80, published: '80', protocol: TCP}}]\n"}, f"{C}:4:38"),
    "an external network in the form before 3.5": (
        {C: f"{A}{SOCKET}\n    networks: [h]\nnetworks: {{h: {{external: {{name: host}}}}}}\n"}, f"{C}:4:16"),
    ".env: the socket": ({C: f"{A}{PORT}\n    volumes: ['${{S}}:/x']\n", ".env": "# a\nexport S='/run' # b\n"},
                         f"{C}:3:14"),
    ".env: the socket, and another default": (
        {C: f"{A}{PORT}\n    volumes: ['${{S:-./x}}:/x']\n", ".env": "S=/run/docker.sock\n"}, f"{C}:3:14"),
    ".env: a variable of a variable": (
        {C: f"{A}{PORT}\n    volumes: ['$S:/x']\n", ".env": 'D=/run\nS="${D}/docker.sock"\n'}, f"{C}:3:14"),
    ".env: a default within a default": (
        {C: f"{A}{PORT}\n    volumes: ['${{A:-${{B:-/run}}}}:/x']\n"}, f"{C}:3:14"),
    ".env: the network": ({C: f"{A}{SOCKET}\n    network_mode: $NM\n", ".env": "NM=host\n"}, f"{C}:4:19"),
    ".env: COMPOSE_FILE": (
        {"a.yml": f"{A}{SOCKET}\n", "b.yml": f"{A}{PORT}\n", ".env": "COMPOSE_FILE=a.yml:b.yml\n"}, "b.yml:3:14"),
    ".env: COMPOSE_PATH_SEPARATOR": (
        {"a.yml": f"{A}{SOCKET}\n", "s/b.yml": f"{A}{PORT}\n",
         ".env": "COMPOSE_PATH_SEPARATOR=;\nCOMPOSE_FILE=a.yml;s/b.yml\n"}, "s/b.yml:3:14"),
    "include: files that are merged": (
        {C: "include:\n- path: [s/a.yaml, s/b.yaml]\n", "s/a.yaml": f"{A}{SOCKET}\n", "s/b.yaml": f"{A}{PORT}\n"},
        "s/b.yaml:3:14"),
    "include: a file that includes": (
        {C: f"include: [s/a.yml]\n{A}network_mode: service:b\n    {SOCKET}\n", "s/a.yml": "include: [b.yml]\n"
         "services: {}\n", "s/b.yml": "services:\n  b: {ports: [80]}\n"}, "s/b.yml:2:15"),
    "extends: a chain": (
        {C: f"{A}extends: b\n    {PORT}\n  b: {{extends: {{service: c}}}}\n  c:\n    {SOCKET}\n"}, f"{C}:4:14"),
    "extends: a service of its own name": (
        {C: f"{A}extends: {{file: x.yml, service: a}}\n    {PORT}\n", "x.yml": f"{A}extends: b\n  b:\n    {SOCKET}\n"},
        f"{C}:4:14"),
    "several documents": ({C: f"{A}{SOCKET}\n---\n{A}{PORT}\n"}, f"{C}:7:14"),
    "!override with a port": ({C: BASE, OVERRIDE: f"{A}ports: !override ['1:1']\n"}, f"{OVERRIDE}:3:24"),
    "!reset of something else": ({C: BASE, OVERRIDE: f"{A}environment: !reset {{}}\n"}, f"{C}:4:14"),
    "!reset in a file that is not taken by default": (
        {C: BASE, "compose.prod.yaml": f"{A}ports: !reset []\n"}, f"{C}:4:14"),
    "a network that the override replaces": (
        {C: f"{BASE}    network_mode: none\n", OVERRIDE: f"{A}network_mode: bridge\n"}, f"{C}:4:14"),
    "macvlan": ({C: f"{A}{SOCKET}\n    networks: [lan]\nnetworks: {{lan: {{driver: macvlan}}}}\n"}, f"{C}:4:16"),
    "ipvlan by default": ({C: f"{A}{SOCKET}\nnetworks: {{default: {{driver: ipvlan}}}}\n"}, f"{C}:2:3"),
    "macvlan of the override": (
        {C: f"{A}{SOCKET}\n    networks: {{lan: {{}}}}\n", OVERRIDE: "networks: {lan: {driver: macvlan}}\n"},
        f"{C}:4:16"),
    "the host's network by default": (
        {C: f"{A}{SOCKET}\nnetworks: {{default: {{external: true, name: host}}}}\n"}, f"{C}:2:3"),
    "Podman: a volume": (
        {"a.container": f"{QUADLET}Volume=s.volume:/x\nPublishPort=80:80\n",
         "s.volume": "[Volume]\nDevice=/run\nType=none\nOptions=bind\n"}, "a.container:4:13"),
    "Podman: a volume by its name, and options of its command": (
        {"a.container": f"{QUADLET}Mount=type=volume,source=v,target=/x\nPublishPort=80:80\n",
         "s.volume": "[Volume]\nVolumeName=v\nPodmanArgs=--opt device=/run --opt o=bind\n"}, "a.container:4:13"),
    "Podman: macvlan": (
        {"a.container": f"{QUADLET}Volume=/run/podman:/x\nNetwork=lan.network:ip=192.0.2.1\n",
         "lan.network": "[Network]\nDriver=macvlan\n"}, "a.container:4:9"),
    "Podman: the network of another container": (
        {"a.container": f"{QUADLET}Volume=/run/podman:/x\nNetwork=b.container\n",
         "b.container": f"{QUADLET}PodmanArgs=-p80:80\n"}, "b.container:3:12"),
    "Podman: a network that is reset": (
        {"a.container": f"{QUADLET}Volume=/run/podman:/x\nNetwork=none\nNetwork=\nPublishPort=80:80\n"},
        "a.container:6:13"),
    "Podman: a network that a drop-in replaces": (
        {"a.container": f"{QUADLET}Volume=/run/podman:/x\nNetwork=none\n",
         "a.container.d/a.conf": "[Container]\nNetwork=\nNetwork=host\n"}, "a.container.d/a.conf:3:9"),
}
"""Files, and where DG108 is."""

TEMPLATES: dict[str, tuple[Files, str]] = {
    "a comment of Jinja": ({f"{C}.j2": f"{A}{SOCKET}\n{{# a\n  b #}}\n    {PORT}\n"}, f"{C}.j2:6:14"),
    "tags of ERB": ({f"{C}.erb": f"{A}{SOCKET}\n<% if @x %>\n    {PORT}\n<% end %>\n"}, f"{C}.erb:5:14"),
    "tags of Terraform": (
        {f"{C}.tftpl": f"{A}{SOCKET}\n%{{ if x }}\n    {PORT}\n%{{ endif }}\n"}, f"{C}.tftpl:5:14"),
    "another language's comment": (
        {f"{C}.erb": f"{A}{SOCKET}\n    # {{#\n    {PORT}\n    # #}}\n<% x %>\n"}, f"{C}.erb:5:14"),
    "alternatives": (
        {f"{C}.erb": f"{A}{SOCKET}\n<% if x %>\n    ports: []\n<% elsif y %>\n    {PORT}\n<% else %>\n    ports: []\n"
                     "<% end %>\n"}, f"{C}.erb:7:14"),
    "alternatives in comments": (
        {f"{C}.j2": f"{A}{SOCKET}\n    # {{% if x %}}\n    {PORT}\n    # {{% else %}}\n    ports: []\n"
                    "    # {% endif %}\n"},
        f"{C}.j2:5:14"),
    "alternatives of a service": (
        {f"{C}.j2": f"{A}{SOCKET}\n  # {{% if x %}}\n  a: {{{PORT}}}\n  # {{% else %}}\n  a: {{image: y}}\n"
                    "  # {% endif %}\n"},
        f"{C}.j2:5:16"),
}
"""The same for templates."""

UP = "up:\n\tdocker compose "

COMMANDS: dict[str, tuple[Files, str]] = {
    **{f"files of two directories: {command}": (
        {script: f"# x\n{command} up -d\n", "base/c.yml": f"{A}{SOCKET}\n", "prod/c.yml": f"{A}{PORT}\n"},
        "prod/c.yml:3:14")
       for script, command in (
           ("Makefile", "$(COMPOSE) -f base/c.yml -f prod/c.yml"),
           ("up.sh", "docker compose \\\n  --file=base/c.yml \\\n  --file 'prod/c.yml'"),
           ("scripts/up.sh", 'docker-compose -f "$ROOT/base/c.yml" -f ./prod/c.yml'),
           ("up.sh", "COMPOSE_FILE=base/c.yml:prod/c.yml docker compose"),
           ("up.sh", "docker stack deploy -c base/c.yml -c prod/c.yml"))},
    "a file without the override that resets its ports": (
        {C: BASE, OVERRIDE: f"{A}ports: !reset []\n", "Makefile": f"{UP}-f {C} up\n"}, f"{C}:4:14"),
}
"""The same with a command that names the files."""

INSIDE: dict[str, Files] = {
    "!reset of ports": {C: BASE, OVERRIDE: f"{A}ports: !reset []\n"},
    "!reset of a service": {C: BASE, OVERRIDE: f"services:\n  a: !override\n    {SOCKET}\n"},
    "!override by a port of no TCP": {C: BASE, OVERRIDE: f"{A}ports: !override ['53:53/udp']\n"},
    "!reset, beside a file of another service": {
        C: BASE, OVERRIDE: f"{A}ports: !reset []\n", "x.yml": f"services:\n  x:\n    {PORT}\n"},
    "commands that name one file each": {
        "up.sh": "docker compose -f a/c.yml up; docker compose -f b/c.yml up\n",
        "a/c.yml": f"{A}{SOCKET}\n", "b/c.yml": f"{A}{PORT}\n"},
    "a command that names a file that is not there": {
        "up.sh": "docker compose -f a/c.yml -f b/d.yml up\n", "a/c.yml": f"{A}{SOCKET}\n", "b/c.yml": f"{A}{PORT}\n"},
    "COMPOSE_FILE with a reset": {
        C: BASE, "prod.yml": f"{A}ports: !reset []\n", ".env": f"COMPOSE_FILE={C}:prod.yml\n"},
    "no network": {C: f"{BASE}    network_mode: none\n"},
    "no network in the override": {
        C: f"{A}{SOCKET}\n    network_mode: host\n", OVERRIDE: f"{A}network_mode: none\n"},
    "a network of a variable": {C: f"{A}{SOCKET}\n    network_mode: ${{NM:-bridge}}\n"},
    "a mode beside an open network": {
        C: f"{A}{SOCKET}\n    network_mode: bridge\nnetworks: {{default: {{driver: ipvlan}}}}\n"},
    "a network of its own beside an open one": {
        C: f"{A}{SOCKET}\n    networks: [b]\nnetworks: {{b: {{}}, default: {{driver: ipvlan}}}}\n"},
    "volumes_from without ports": {C: f"{A}volumes_from: [b]\n  b:\n    {SOCKET}\n  c:\n    {PORT}\n"},
    "extends: a service of the same name elsewhere": {
        C: f"{A}extends: {{file: x.yml, service: b}}\n    {SOCKET}\n  c: {{image: y}}\n",
        "x.yml": f"services:\n  b: {{image: y}}\n  c:\n    {PORT}\n"},
    "Podman: no network": {"a.container": f"{QUADLET}Volume=/run/podman:/x\nNetwork=none\nPublishPort=80:80\n"},
    "Podman: ports that a drop-in resets": {
        "a.container": f"{QUADLET}Volume=/run/podman:/x\nPublishPort=80:80\n",
        "a.container.d/a.conf": "[Container]\nPublishPort=\n"},
}
"""Files in which a service has the API socket, and no way to the network."""

WITHOUT: dict[str, Files] = {
    "a secret": {C: f"{A}{PORT}\n    secrets: [s]\nsecrets: {{s: {{file: ./docker.sock.txt}}}}\n"},
    "a volume of NFS": {
        C: f"{A}{PORT}\n    volumes: ['v:/x']\n"
        "volumes: {v: {driver_opts: {type: nfs, o: addr=x, device: ':/run'}}}\n"},
    **{f"a mount of {path}": {C: f"{A}{PORT}\n    volumes: ['{path}:/x']\n"} for path in (
        "/run/user", "/run/user/1000/app", "../../run", "./run", "/run/host-services")},
    "a volume of a file system": {
        C: f"{A}{PORT}\n    volumes: ['v:/x']\nvolumes: {{v: {{driver_opts: {{type: btrfs, device: /}}}}}}\n"},
    "a volume that nothing mounts": {C: f"{A}{PORT}\nvolumes: {{v: {{{BIND}: /run}}}}}}\n"},
    "a variable that is not the socket": {C: f"{A}{PORT}\n    volumes: ['${{DATA}}:/x']\n"},
    "a variable with another value": {
        C: f"{A}{PORT}\n    volumes: ['${{S:-/run/docker.sock}}:/x']\n", ".env": "S=/srv/x\n"},
    "a volume that is overridden": {C: BASE, OVERRIDE: f"{A}volumes: !override ['x:/y']\n"},
    "volumes_from, and not its ports": {C: f"{A}volumes_from: [b]\n  b:\n    {PORT}\n"},
    "include: variables of the same file": {
        C: "include:\n- {path: s/a.yaml, env_file: s/.env}\n", ".env": "T=/srv\nS=host\n",
        "s/a.yaml": f"{A}{PORT}\n    volumes: ['$T:/x']\n", "s/.env": "S=/run\n"},
    "docker-in-docker: other ports": {C: f"{DIND}ports: ['80-90:80-90', '2377:2377', '2375:80']\n"},
    "docker-in-docker: loopback": {C: f"{DIND}ports: ['127.0.0.1:9000:2375']\n"},
    "docker-in-docker: no port": {C: DIND},
    "docker-in-docker: no port, and an address": {C: f"{DIND}command: dockerd --host=tcp://0.0.0.0:2376\n"},
    "docker-in-docker: another port than its address": {C: f"{A}command: dockerd -H :4243\n    ports: ['80:80']\n"},
    "docker-in-docker, and an address of another program": {
        C: f"{DIND}\n  b:\n    image: moby/buildkit\n    command:\n    - --addr\n    - tcp://0.0.0.0:1234\n"},
    **{f"docker-in-docker: {name}": {C: f"{A}network_mode: host\n    build: {build}\n", "Dockerfile": text}
       for name, build, text in (
           ("a stage that is not the last one", ".", "FROM docker:dind AS a\nFROM alpine\nCOPY --from=a /x /y\n"),
           ("another target", "{target: b}", "FROM alpine AS b\nFROM docker:dind\n"),
           ("another argument", "{args: {V: cli}}", "ARG V=dind\nFROM docker:$V\n"),
           ("a comment", ".", "# FROM docker:dind\nFROM alpine\n"),
           ("a document", ".", "FROM alpine\nRUN <<E\nFROM docker:dind\nE\n"),
           ("no such file", "./x", "FROM docker:dind\n"))},
    "the host of another program": {C: f"{A}image: x\n    command: [--host, 0.0.0.0]\n    {PORT}\n"},
    "the port 2375 of the host": {C: f"{A}image: docker.io/registry\n    ports: ['2375:5000']\n"},
    "a file of another program": {"10-a.network": "[Match]\nName=eth0\n[Network]\nMACVLAN=m\n"},
}
"""Files in which nothing has the API socket."""

UNKNOWN: dict[str, tuple[Files, str]] = {
    "a file .env of more than is read": (
        {C: "services: {a: {volumes: ['${S}:/s'], ports: ['80:80']}}\n", ".env": f"#{'x' * 1024 * 1024}\nS=/run\n"},
        ".env: larger than 1 MiB; not read"),
    "include: a repository": ({C: f"include: ['https://git.example/a.git']\n{A}{PORT}\n"},
                              f"{C}:1: includes another file that is not read"),
    "include: an image, and no services": ({C: "include:\n- path: oci://docker.io/a/b\n"},
                                           f"{C}:2: includes another file that is not read"),
    "include: an account at a host": ({C: "include: ['git@git.example:a/b']\n"},
                                      f"{C}:1: includes another file that is not read"),
    "include: a variable": ({C: "include: ['$FILE']\n"}, f"{C}:1: includes another file that is not read"),
    "include: a file elsewhere": ({C: "include: [../a.yaml]\n"}, f"{C}: includes ../a.yaml, which is not read"),
    "include: variables of another file": (
        {C: "include:\n- path: s/a.yaml\n  env_file: s/prod.env\n", "s/a.yaml": f"{A}{PORT}\n"},
        f"{C}:2: includes another file that is not read"),
    "include: the socket by a variable": (
        {C: "include: [s/a.yaml]\n", ".env": "S=/run\nT=1\n", "s/a.yaml": f"{A}{PORT}\n    volumes: ['$S:/$T']\n"},
        f"{C}: includes s/a.yaml, whose variables are not known"),
    "COMPOSE_FILE: a file elsewhere": (
        {C: f"{A}{SOCKET}\n", ".env": f"COMPOSE_FILE={C}:../b.yml\n"},
        f"{C}: the file .env beside it has in COMPOSE_FILE ../b.yml, which is not read"),
    "the socket by a variable": (
        {C: f"{A}{PORT}\n    volumes: ['${{DOCKER_SOCKET}}:/x']\n"},
        f"{C}: a publishes a port, and whether ${{DOCKER_SOCKET}} is the API socket is not known"),
    **{f"docker-in-docker: {ports}": (
        {C: f"{DIND}ports: [{ports}]\n"}, f"{C}: d runs docker-in-docker and publishes port {shown}: ")
       for ports, shown in (("'2370-2380:2370-2380'", "2370-2380:2370-2380"), ("{target: 2375, published: 80}", "80"),
                            ("'80:$P'", "80:$P"), ("'[::]:80:2376/tcp'", "[::]:80:2376/tcp"))},
    **{f"docker-in-docker: {key}": (
        {C: f"{A}{key}\n    ports: ['80:{port}']\n"}, f"{C}: a runs docker-in-docker and publishes port 80:{port}: ")
       for key, port in (
           ("command: dockerd -H 0.0.0.0:4243", 4243), ("entrypoint: [dockerd, -H, ':4243']", 4243),
           ("entrypoint: dockerd\n    command: >\n      dockerd -D\n      -H tcp://0.0.0.0:4243", 4243),
           ("image: docker:dind\n    command: [--host=tcp://:4243]", 4243), ("command: dockerd -H tcp://$A", 80))},
    **{f"docker-in-docker: {name}": (
        {C: f"{A}ports: ['80:2375']\n    build: {build}\n", file: text},
        f"{C}: a runs docker-in-docker and publishes port 80:2375: ")
       for name, build, file, text in (
           ("a Dockerfile", ".", "Dockerfile", "FROM docker:dind\n"),
           ("a Dockerfile of another name", "{context: ./x, dockerfile: D}", "x/D",
            "FROM --platform=a docker:27-dind\n"),
           ("a stage", "{target: B}", "Dockerfile", "FROM docker:dind AS a\nFROM a as b\nFROM alpine\n"),
           ("a stage by its number", "{target: 0}", "Dockerfile", "from docker:dind\nFROM alpine\n"),
           ("the last stage", "{}", "Dockerfile", "FROM alpine AS a\nRUN x <<E\nFROM y\nE\nFROM docker:\\\ndind\n"),
           ("the default of an argument", ".", "Dockerfile", "ARG A B='dind'\nFROM docker:${B}\n"),
           ("an argument", "{args: {V: 27-dind}}", "Dockerfile", "ARG V=cli\nFROM docker:$V\n"),
           ("an argument in a list", "{args: [V=27-dind]}", "Dockerfile", "ARG V\nFROM docker:$V\n"),
           ("an image of its own name", "{additional_contexts: {base: 'docker-image://docker:dind'}}", "Dockerfile",
            "FROM base\n"),
           ("a Dockerfile within the file", "\n      dockerfile_inline: |\n        FROM docker:dind\n        RUN x",
            "x", ""),
           ("more instructions than are read", ".", "Dockerfile", "FROM alpine\n" * 1_001))},
    "docker-in-docker: a command in the override": (
        {C: DIND, OVERRIDE: "services:\n  d:\n    command: --host=tcp://:4243\n    ports: ['80:4243']\n"},
        f"{OVERRIDE}: d runs docker-in-docker and publishes port 80:4243: "),
    "docker-in-docker: a port in the override": (
        {C: DIND, OVERRIDE: "services:\n  d:\n    ports: ['1-3:2374-2376']\n"},
        f"{OVERRIDE}: d runs docker-in-docker and publishes port 1-3:2374-2376: "),
    "docker-in-docker: the host's network of a variable": (
        {C: f"{DIND}network_mode: $NM\n", ".env": "NM=host\n"},
        f"{C}: d runs docker-in-docker and uses the host's network: "),
    "docker-in-docker: macvlan": (
        {C: f"{DIND}networks: [l]\nnetworks: {{l: {{driver: macvlan}}}}\n"},
        f"{C}: d runs docker-in-docker and is in a network of the driver macvlan: "),
    "more services than are followed": (
        {C: "services:\n" + "".join(f"  s{n}: {{extends: s{n + 1}, {PORT}}}\n" for n in range(20))
            + f"  s20:\n    {SOCKET}\n"},
        "s0, s1: extends more than 20 services, or has the networks or mounts of as many, "
        "or more than 100 drop-ins; the others are not read"),
    "a line after a command": (
        {C: f"{A}command: >\n      dockerd -H :1\n    x-a: dockerd -H :1\n"}, f"{C}:5: names a TCP address"),
    "a container in a command": (
        {C: f"{A}command: docker run -p 80:80 -v /run/docker.sock:/s x\n"}, f"{C}:3: runs a container with"),
    "services that are no containers": (
        {"layer.yaml": "services:\n  docker:\n    command: dockerd -H :4243\n"},
        "layer.yaml:3: names a TCP address for dockerd"),
    "the network in another file": (
        {C: f"{A}{SOCKET}\n", OVERRIDE: f"{A}network_mode: $NM\n"},
        f"{OVERRIDE}: a has the API socket, and the value of its network_mode is not known"),
}
"""Files, and what is said about them."""


def write(here: Path, files: Files) -> None:
    for path, text in files.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)


@pytest.mark.parametrize("name", [*FOUND, *TEMPLATES, *COMMANDS])
def test_the_socket_and_a_way_to_the_network(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, place = (FOUND | TEMPLATES | COMMANDS)[name]
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".", "--format", "json")
    assert [f"{each['file']}:{each['line']}:{each['column']}" for each in said.json["findings"]] == [place], (
        said.out + said.err)
    assert {each["code"] for each in said.json["findings"]} == {"DG108"} and said.code == 1


@pytest.mark.parametrize("name", FOUND)
def test_the_same_below_a_root(name: str, tmp_path: Path, call: Call) -> None:
    files, place = FOUND[name]
    write(tmp_path / "opt/app" if "container" not in place else tmp_path / "etc/containers/systemd", files)
    said = call("lint", "--root", tmp_path)
    assert said.code == 1 and f"/{place}: error: the container " in said.out, said.out + said.err


@pytest.mark.parametrize("name", INSIDE)
def test_the_socket_and_no_way_to_the_network(name: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, INSIDE[name])
    said = call("lint", tmp_path)
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.out + said.err


@pytest.mark.parametrize("name", WITHOUT)
def test_nothing_has_the_socket(name: str, tmp_path: Path, call: Call) -> None:
    write(tmp_path, {**WITHOUT[name], "daemon.json": "{}"})
    said = call("lint", tmp_path)
    assert (said.code, said.out) == (0, "nothing wrong\n"), said.out + said.err


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_no_all_clear(
    name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, message = UNKNOWN[name]
    write(tmp_path, {**files, "daemon.json": "{}"})
    monkeypatch.chdir(tmp_path)
    said = call("lint", ".")
    assert said.code == 2 or "more services" in name, said.out + said.err
    assert message in said.err


def test_a_local_port_of_a_variable_is_a_warning(tmp_path: Path, call: Call) -> None:
    write(tmp_path, {C: f"{A}{SOCKET}\n    ports: ['${{IP}}:80:80']\n", ".env": "IP=127.0.0.1\n"})
    said = call("lint", tmp_path)
    assert f"{C}:4:14: warning: " in said.out and "publishes port ${IP}:80:80" in said.out, said.out + said.err


def test_two_services_with_one_port_are_both_exposed(tmp_path: Path, call: Call) -> None:
    service = f"    network_mode: service:b\n    {SOCKET}\n"
    write(tmp_path, {C: f"services:\n  a:\n{service}  c:\n{service}  b:\n    {PORT}\n"})
    said = call("lint", tmp_path)
    assert said.code == 1 and "neither publishes a port" not in said.err


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_encodings_that_compose_reads(encoding: str, tmp_path: Path, call: Call) -> None:
    text = f"{A}{SOCKET}\n    {PORT}\n# {'x' * 4000}\n"
    (tmp_path / C).write_bytes((b"\xfe\xff" if encoding == "utf-16-be" else b"") + text.encode(encoding))
    said = call("lint", tmp_path)
    assert said.code == 1 and f"{C}:4:14: error: " in said.out, said.out + said.err


def test_a_link_out_of_the_directory_is_not_followed(tmp_path: Path, call: Call) -> None:
    write(tmp_path, {"secret": "S=/run\n", f"app/{C}": f"{A}{PORT}\n    volumes: ['$S:/x']\n"})
    (tmp_path / "app/.env").symlink_to("../secret")
    assert call("lint", tmp_path / "app").code == 2


VARIABLES = {"A": "a", "E": ""}


@pytest.mark.parametrize(("text", "expected"), [
    ("$A ${A} $$A $", "a a $A $"), ("${E:-x} ${E-x} ${N-x} ${N:-}", "x  x "), ("${A:+x} ${E:+x} ${E+x}", "x  x"),
    ("${N} $N ${N:?m} ${N:+x}", "${N} $N ${N:?m} ${N:+x}"), ("${A:?m}", "a"), ("${N:-${A}}", "a"), ("${", "${"),
])
def test_variables_are_replaced(text: str, expected: str) -> None:
    assert interpolated(text, VARIABLES) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("A=b\nC = d # e\nexport F: g\n#H=i\n", {"A": "b", "C": "d", "F": "g"}),
    ("A='$B # c'\nD=\"e\nf\"\r\nG=\"\\\"$A\"\n", {"A": "$B # c", "D": "e\nf", "G": '"$B # c'}),
    ("A=\nB=#c\nD=e#f\n", {"A": "", "B": "", "D": "e#f"}), ("A=" + "x" * 300, {}),
    ("A='x\nB=c\n", {"A": "'x", "B": "c"}),
])
def test_variables_of_a_file(text: str, expected: dict[str, str]) -> None:
    assert variables_of(text) == expected


@pytest.mark.parametrize("files", [
    {C: "services:\n" + "".join(
        f"  s{n}: {{extends: s{n + 1}, volumes_from: [s{n + 1}], network_mode: service:s{n + 1}}}\n"
        for n in range(1200)) + f"  s1200:\n    {SOCKET}\n    {PORT}\n"},
    {f"{n}.yml": f"include: [{n + 1}.yml]\nservices: {{a: {{ports: [80], {SOCKET}}}}}\n" for n in range(300)},
    {C: f"{A}{SOCKET}\n    ports:\n" + "    - $A$A$A\n" * 4000,
     ".env": "A=" + "$A" * 100 + "\n" + "A=$A$A\n" * 140_000},
    {C: f"{A}{SOCKET}\n" + "    ports: [80]\n" * 4900},
    {C: f"{A}{SOCKET}\n    x: &x {{a: {{b: [1]}}}}\n" + "    x: *x\n    x: {a: {b: *x}}\n" * 2400},
    {C: f"{A}{SOCKET}\n    ports: ['" + "${A:-" * 9000 + "']\n", ".env": "A='" + '\nA="' * 9000},
    {C: "services:\n" + "".join(f"  s{n}: {{build: {{args: {{A: {n}}}}}, {PORT}}}\n" for n in range(2_000)),
     "Dockerfile": "ARG A=$A$A\nRUN <<A \\\n" * 40_000},
    {C: f"{A}network_mode: host\n    build: .\n", "Dockerfile": "".join(
        f"RUN <<A{n}\n" for n in range(90_000))},
], ids=["chains", "includes", "values", "lists", "mappings", "openers", "builds", "documents"])
def test_hostile_files_take_bounded_time(files: Files, tmp_path: Path, call: Call) -> None:
    write(tmp_path, files)
    def work() -> None:
        assert call("lint", tmp_path).code in (1, 2)

    check_cpu_time(work, 3)


@pytest.mark.parametrize(("waiver", "code"), [
    ("rule: DG108, container: proxy", 0), ("rule: DG108", 0), ("rule: DG108, container: other", 1),
    ("rule: DG108, container: proxy, until: 2026-01-01", 1),
])
def test_a_policy_waives_a_container_by_the_name_of_its_service(
        tmp_path: Path, call: Call, waiver: str, code: int) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n  proxy: {image: x, volumes: ['/run/docker.sock:/s'], ports: ['80:80']}\n")
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"version: 1\nsockets: [fd://]\nwaive: [{{{waiver}, reason: meant to be}}]\n")
    said = call("lint", "--policy", str(policy), str(tmp_path / "compose.yaml"))
    assert (said.code, "DG108" in said.out) == (code, code == 1), said.out + said.err
