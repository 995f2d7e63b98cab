"""`lint DIR`: hosts of dockerd in lists, in options of variables and in words of several parts, and relays to a dockerd
on the loopback address; and what is close to them and opens nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockerd_guard.observe import unread_hosts
from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time
from tests.support.lint_rows import assert_named, assert_not_named, write

pytest_plugins = ["tests.support.fixtures"]
JSON = "/etc/docker/daemon.json"
PYTHON = f"import json\nc = json.load(open('{JSON}'))\n"
NIX = "{ virtualisation.docker.%s; }\n"
TRAEFIK = ("tcp:\n  routers: {d: {rule: HostSNI(`*`), service: d}}\n  services:\n    d:\n      loadBalancer:\n"
           "        servers:\n          - address: 127.0.0.1:2375\n")
MANY = '"unix:///s", ' * 99
ENDPOINTS = "kind: Endpoints\nmetadata: {name: d}\nsubsets:\n- addresses: [{ip: 10.0.0.5}]\n  ports: [port: 2375]\n"

LISTS: dict[str, tuple[str, str, int]] = {
    **{f"jq: {expression}": ("a.sh", f"\njq '{expression}' {JSON} > t && mv t {JSON}\n", 2) for expression in (
        '.hosts += ["10.0.0.5:4243"]', '.hosts |= . + ["10.0.0.5:4243"]', '.["hosts"] = ["10.0.0.5:4243"]',
        '. + {hosts: ["10.0.0.5:4243"]}', '. * {"hosts": ["fd://", "10.0.0.5"]}', '.hosts += ["engine:4243"]',
        '.hosts[1] = "[fd00::5]:4243"', 'setpath(["hosts",1]; "10.0.0.5:4243")', '.hosts += [env.H]',
        '.hosts += ["tcp" + "://10.0.0.5:4243"]')},
    "jq: a variable": ("a.sh", f"\njq --arg h \"$IP:4243\" '.hosts += [$h]' {JSON} > t\n", 2),
    "jq: lines": ("a.sh", f"\njq '.hosts += [\n  \"10.0.0.5:4243\"\n]' \\\n  {JSON} > t\n", 2),
    "yq": ("a.sh", f"\nyq -i -o json '.hosts += [\"10.0.0.5:4243\"]' {JSON}\n", 2),
    "yq: version 3": ("a.sh", f"\nF={JSON}\nyq w -i $F 'hosts[+]' tcp://10.0.0.5:4243\n", 3),
    "dasel": ("a.sh", f"\ndasel put -f {JSON} \\\n  -t string \\\n  -v 'tcp://10.0.0.5:4243' '.hosts.[]'\n", 4),
    "dasel: a file in a variable": (
        "a.sh", f"\nF={JSON}\ndasel put -t string -f \"$F\" -v 'tcp://10.0.0.5:4243' '.hosts.[]'\n", 3),
    "augtool": ("a.sh", f"\naugtool -s set /files{JSON}/dict/entry[2] hosts \\\n  tcp://10.0.0.5:4243\n", 3),
    "a filter of jq": ("a.jq", '\n.hosts += ["tcp://10.0.0.5:4243"]\n', 2),
    "Lua": ("a.lua", '\ndaemon_json = { ["hosts"] = { "10.0.0.5:4243" } }\n', 2),
    "Guix": ("a.scm", '(scm->json-string \'((hosts . #("unix:///var/run/docker.sock" "tcp://10.0.0.5:4243"))))\n', 1),
    "jo": ("a.sh", f"\njo hosts=$(jo -a 10.0.0.5:4243) > {JSON}\n", 2),
    "jq in cloud-init": (
        "user-data", f"#cloud-config\nruncmd:\n- [sh, -c, 'jq \".hosts=[\\\"10.0.0.5:4243\\\"]\" {JSON} > /t']\n", 3),
    "Python": ("a.py", f"{PYTHON}c['hosts'] = ['10.0.0.5:4243']\n", 3),
    "Python: a method": ("a.py", f"{PYTHON}c.setdefault('hosts', []).append('10.0.0.5:4243')\n", 3),
    "Python: a keyword": ("a.py", f"{PYTHON}c.update(hosts=['10.0.0.5:4243'])\n", 3),
    "Python: a variable": ("a.py", f"ADDRESS = '10.0.0.5:4243'\n{PYTHON}c['hosts'] = [ADDRESS]\n", 4),
    "Python: an expression": ("a.py", f"{PYTHON}c['hosts'] += [f'{{ip}}:4243']\n", 3),
    "Ruby": ("a.rb", f"c = JSON.parse(File.read('{JSON}'))\nc['hosts'] << '10.0.0.5:4243'\n", 2),
    "Perl": ("a.sh", f"\nperl -MJSON -e 'push @{{$c->{{hosts}}}}, \"10.0.0.5:4243\"' {JSON}\n", 2),
    "Node.js": ("a.sh", f"\nnode -e 'const c=require(\"{JSON}\");c.hosts.push(\"10.0.0.5:4243\")'\n", 2),
    "PowerShell": (
        "a.ps1", "\n@{ hosts = @('npipe://', '10.0.0.5:4243') } | ConvertTo-Json | Out-File daemon.json\n", 2),
    "PowerShell: a property": (
        "a.ps1", "# daemon.json\n$c | Add-Member -Name hosts -Value @('10.0.0.5:4243') daemon.json\n", 2),
    "sed": ("a.sh", f"\nsed -i 's/\"fd:\\/\\/\"/\"fd:\\/\\/\", \"10.0.0.5:4243\"/' {JSON}\n", 2),
    "sed: before fd://": ("a.sh", f"\nsed -i 's#\"fd://\"#\"10.0.0.5:4243\", \"fd://\"#' {JSON}\n", 2),
    "a text of a script": ("a.sh", f"\ncat > {JSON} <<E\n{{\n  \"hosts\": [\"10.0.0.5:4243\"]\n}}\nE\n", 4),
    "Terraform": (
        "a.tf", f'filename = "{JSON}"\ncontent = jsonencode({{ hosts = ["fd://", "${{var.ip}}:4243"] }})\n', 2),
    "Ansible: variables": ("a.yml", "docker_daemon_options:\n  hosts:\n    - fd://\n    - '{{ ip }}:4243'\n", 2),
    "Salt": ("a.sls", f"{JSON}:\n  file.serialize:\n  - dataset:\n      hosts: ['10.0.0.5:4243']\n", 4),
    "NixOS": ("a.nix", NIX % 'daemon.settings.hosts = [ "10.0.0.5:4243" ]', 1),
    "NixOS: a variable": ("a.nix", NIX % 'listenOptions = [ "/run/docker.sock" address ]', 1),
    "Colima": ("colima.yaml", "docker:\n  hosts:\n  - unix:///var/run/docker.sock\n  - 10.0.0.5:4243\n", 2),
    "Chef": ("a.rb", "docker_service 'a' do\n  host [\"unix:///s\", \"#{node['ip']}:4243\"]\nend\n", 2),
    "Ansible: an expression": (
        "a.yml", "- set_fact:\n    docker_cfg: \"{{ x | combine({'hosts': ['fd://', ip + ':4243']}) }}\"\n", 2),
    "Ansible: a variable with sockets": (
        "a.yml", "docker__hosts:\n- unix:///var/run/docker.sock\n- 10.0.0.5:4243\n", 1),
    "Ansible: a patch": (
        "a.yml", f"- json_patch:\n    src: {JSON}\n    operations:\n    - path: /hosts\n      value: ['a:80']\n", 4),
    "a list of a shell": ("a.sh", "\nH=(fd:// 10.0.0.5:4243)\ndockerd \"${H[@]/#/-H }\"\n", 2),
    "more words than are read": ("a.sh", f"\njq '.hosts += [{MANY}]' {JSON} > t\n", 2),
}

OPTIONS: dict[str, tuple[str, str, int]] = {
    "a variable in a variable": ("a.sh", "\nA=0.0.0.0:4243\necho \"DOCKER_OPTS='-H $A'\" > /etc/default/docker\n", 3),
    "a scheme in a variable": ("a.sh", '\nP=tcp\nDOCKER_OPTS="-H $P://0.0.0.0:4243"\n', 3),
    "a variable that is not set": ("a.sh", '\nDOCKER_OPTS="-H $1"\n', 2),
    "a host that is not set": ("a.sh", '\nDOCKER_OPTS="--host=${ADDRESS}:4243 -H fd://"\n', 2),
    "an addition": ("a.sh", '\nDOCKER_OPTS+=" -H $IP:4243"\n', 2),
    "a loopback address, as in a unit": ("a.sh", "\ndockerd --host=tcp://127.0.0.1\n", 2),
    "Terraform": ("a.tf", 'user_data = <<E\necho \'DOCKER_OPTS="-H ${var.ip}:4243"\' >> /etc/default/docker\nE\n', 2),
    "Fabric": ("a.py", "\nrun('echo \\'DOCKER_OPTS=\"-H %s:4243\"\\' > /etc/default/docker' % ip)\n", 2),
    "Salt": ("a.sls", 'docker:\n  daemon_opts: "-H 10.0.0.5:4243 -H unix:///var/run/docker.sock"\n', 2),
    "Chef": ("a.rb", "\ndefault['docker']['daemon_opts'] = '--host=10.0.0.5:4243'\n", 2),
    "Chef: a socket unit": (
        "a.rb", "systemd_unit 'docker.socket' do\n  content(Socket: { ListenStream: '10.0.0.5:4243' })\nend\n", 2),
    "Puppet": ("a.pp", "\nclass { 'docker': extra_parameters => ['--host=10.0.0.5:4243'] }\n", 2),
    "Ansible: several lines": ("a.yml", "docker_options: >-\n  --log-opt max-size=50m\n  -H 10.0.0.5:4243\n", 3),
    "Ansible: ini_file": (
        "a.yml", "- ini_file:\n    path: /etc/systemd/system/docker.socket.d/a.conf\n    section: Socket\n"
        "    option: ListenStream\n    value: 10.0.0.5:4243\n", 4),
    "crudini": ("a.sh", "\ncrudini --set /lib/systemd/system/docker.socket Socket ListenStream 4243\n", 2),
    "CloudFormation": ("a.yml", "UserData: |\n  echo 'OPTIONS=\"-H ${Ip}:4243\"' > /etc/sysconfig/docker\n", 2),
    "systemd-socket-activate": ("a.sh", "\nsystemd-socket-activate -l 10.0.0.5:4243 dockerd -H fd://\n", 2),
    "Helm": ("values.yaml", "dind:\n  extraArgs:\n  - --host=tcp://0.0.0.0:4243\n", 3),
    "RancherOS": ("a.yml", "rancher:\n  docker:\n    args: [daemon, '--host', '10.0.0.5:4243']\n", 3),
    "Nomad": ("a.nomad", 'config {\n  command = "/usr/bin/dockerd"\n  args = ["-H", "${attr.ip}:4243"]\n}\n', 3),
    "Kubernetes: arguments before the command": (
        "a.yaml", 'args: ["--debug", "--host=10.0.0.5:4243"]\ncommand: ["/usr/local/bin/dockerd"]\n', 1),
    "NixOS: several lines": ("a.nix", NIX % "extraOptions = ''\n  --debug\n  --host 10.0.0.5:4243\n''", 3),
    "sed: fd:// is replaced": (
        "a.yml", "command: sed -i s#fd://#10.0.0.5:4243# /lib/systemd/system/docker.service\n", 1),
    "sed: a variable": ("a.sh", "\nsed -i 's|fd://|fd:// -H ${IP}:4243|' /lib/systemd/system/docker.service\n", 2),
    "OpenRC": (
        "etc/init.d/docker", '#!/sbin/openrc-run\ncommand=/usr/bin/dockerd\ncommand_args="-H 10.0.0.5:4243"\n', 3),
    "OpenRC: a variable that the script does not use": ("etc/conf.d/docker", 'command_args="-H 10.0.0.5:4243"\n', 1),
    "Debian: a variable that the unit does not use": (
        "etc/default/docker", "DOCKER_OPTS=\nDOCKERD_ARGS='-H 10.0.0.5:4243'\n", 2),
    "an init script": (
        "a.sh", '\nDAEMON=/usr/bin/dockerd\nDAEMON_ARGS="-H $IP:1"\nstart-stop-daemon -x $DAEMON -- $DAEMON_ARGS\n', 4),
    "runit": ("sv/docker/conf", "OPTS='-H 10.0.0.5:4243'\n", 1),
    "a list of a shell": ("a.sh", '\nARGS=(dockerd)\nARGS+=(-H 10.0.0.5:4243)\nexec "${ARGS[@]}"\n', 3),
    "parameters of a shell": ("a.sh", '\nset -- dockerd\nset -- "$@" -H 10.0.0.5:4243\nexec "$@"\n', 3),
    "dockerd in a variable": ("a.sh", '\nD=/usr/bin/dockerd\nexec "$D" -H 10.0.0.5:4243\n', 3),
    "a part of dockerd in a variable": ("a.sh", "\nX=docker\n${X}d -H 10.0.0.5:4243\n", 3),
    "dockerd in two variables": ("a.sh", '\nA=/usr/bin\nB=docker\nexec "$A/${B}d" --host 10.0.0.5:4243\n', 4),
    "the end of dockerd in a variable": ("a.sh", '\nE=d\n"docker$E" -H 10.0.0.5:4243\n', 3),
    "Ansible: a part of dockerd in a variable": (
        "a.yml", "vars:\n  x: docker\ntasks:\n- command: '{{ x }}d -H 10.0.0.5:4243'\n", 4),
    "dockerd by xargs(1)": ("a.sh", "\necho -H 10.0.0.5:4243 | xargs dockerd\n", 2),
    "dockerd by xargs(1), with options": ("Makefile", "\nrun:\n\txargs -a hosts -n1 sudo /usr/bin/dockerd\n", 3),
    "what a command prints": ("a.sh", "\ndockerd $(echo -H 10.0.0.5:4243)\n", 2),
    "dockerd by which(1)": ("a.sh", "\nD=$(command -v dockerd)\n$(which dockerd) -H 10.0.0.5:4243\n", 3),
}

PARTS: dict[str, str] = {
    "marks of nothing": 'docker""d -H 0.0.0.0:4243', "marks of nothing, the others": "docker''d -H 0.0.0.0:4243",
    "a part in marks": '"docker"d -H 0.0.0.0:4243', "the rest in marks": "/usr/bin/dock\"er\"'d' --host 10.0.0.5:4243",
    "a backslash": "d\\ockerd -H 10.0.0.5:4243", "two lines": "dock\\\nerd -H 10.0.0.5:4243",
    "two lines of an option": "dockerd --ho\\\nst=10.0.0.5:4243", "an option": 'dockerd -"H" 10.0.0.5:4243',
    "a long option": 'dockerd --ho"st"=10.0.0.5:4243', "a scheme": 'exec dockerd -H t"c"p://10.0.0.5:4243',
    "marks of bash": "docker$'d' -H 10.0.0.5:4243",
}

RELAYS: dict[str, tuple[str, str, int]] = {
    "Traefik": ("traefik/dynamic.yml", TRAEFIK, 7),
    "Traefik: TOML": ("d.toml", '# docker\n[[tcp.services.d.loadBalancer.servers]]\naddress = "127.0.0.1:2375"\n', 3),
    "Traefik: HTTP": ("d.yml", "# docker\nservers:\n- url: http://localhost:2375\n", 3),
    "Traefik: a label": ("a.sh", "\ndocker run -l traefik.tcp.services.d.loadbalancer.server.port=2375 x\n", 2),
    "HAProxy": ("haproxy.cfg", "frontend f\n  bind :4243\nbackend b\n  server d 127.0.0.1:2375\n", 4),
    "HAProxy: a template": ("haproxy.cfg", "backend b\n  server-template d 1 127.0.0.1:2375 check\n", 2),
    "Caddy: JSON": ("caddy.json", '\n{"handler":"proxy","upstreams":[{"dial":["127.0.0.1:2375"]}]}\n', 2),
    "Python": (
        "a.py", "# docker\nl = socket.create_server(('', 80))\nu = socket.create_connection(('127.0.0.1', 2375))\n", 3),
    "nginx": ("nginx.conf", "\nstream { server { listen 4243; proxy_pass 127.0.0.1:2375; } }\n", 2),
    "Caddy": ("Caddyfile", ":80 {\n  reverse_proxy 127.0.0.1:2375\n}\n", 2),
    "Apache": ("a.conf", "\nProxyPass / http://127.0.0.1:2375/\n", 2),
    "Envoy": ("envoy.yaml", "# docker\nsocket_address: {address: 127.0.0.1, port_value: 2375}\n", 2),
    "stunnel": ("stunnel.conf", "[docker]\naccept = 4243\nconnect = 127.0.0.1:2375\n", 3),
    "socat": ("a.sh", "\nsocat TCP-LISTEN:4243,fork TCP:127.0.0.1:2375\n", 2),
    "iptables": (
        "a.sh", "\niptables -t nat -A PREROUTING -p tcp --dport 4243 -j DNAT --to-destination 127.0.0.1:2375\n", 2),
    "rinetd": ("rinetd.conf", "\n0.0.0.0 4243 127.0.0.1 2375\n", 2),
    "xinetd": ("xinetd.d/docker", "service docker\n{\n  redirect = 127.0.0.1 2375\n}\n", 3),
    "ssh: a port of the other host": ("a.sh", "\nssh -R '*:4243:127.0.0.1:2375' x\n", 2),
    "ssh: all addresses": ("a.sh", "\nssh -N -g -L 4243:127.0.0.1:2375 x\n", 2),
    "frp": ("frpc.toml", '[[proxies]]\nname = "docker"\nlocalPort = 2375\n', 3),
    "a unit": ("a.service", "[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd 127.0.0.1:2375\n", 2),
    "cloudflared": ("config.yml", "ingress:\n- hostname: d.example\n  service: tcp://localhost:2375\n", 3),
    "Tailscale": ("a.sh", "\ntailscale funnel 2375\n", 2),
    "ngrok": ("a.sh", "\nngrok tcp 2375\n", 2),
    "chisel": ("a.sh", "\nchisel client x R:4243:127.0.0.1:2375\n", 2),
    "Windows": ("a.ps1", "\nnetsh interface portproxy add v4tov4 listenport=80 connectport=2375\n", 2),
    "Incus": ("a.sh", "\nincus config device add c d proxy listen=tcp::80 connect=tcp:127.0.0.1:2375\n", 2),
    "Kubernetes: endpoints": ("a.yml", ENDPOINTS, 5),
}
OPEN = {f"{kind}: {name}": row for kind, rows in (
    ("a list", LISTS), ("an option", OPTIONS), ("a word in parts", {
        name: ("a.sh", f"\n{text}\n", 2 + text.count("\n")) for name, text in PARTS.items()}),
    ("a relay", RELAYS)) for name, row in rows.items()}

HARMLESS: dict[str, tuple[str, str]] = {
    **{f"jq: {expression}": ("a.sh", f"\njq '{expression}' {JSON} > t\n") for expression in (
        '.hosts += ["unix:///run/x.sock"]', "del(.hosts)", ".hosts[]", '.hosts == ["fd://"]', ".hosts = []",
        '.["insecure-registries"] += ["10.0.0.5:5000"]', '.hosts = ["fd://"] | .dns = ["10.0.0.5"]',
        '.hosts |= map(select(startswith("unix")))',
        '.hosts = ["fd://"] | .["insecure-registries"] = ["10.0.0.5:5000"]')},
    "Python: other uses": (
        "a.py", f"{PYTHON}for h in c.get('hosts', []):\n    print(h)\nif c['hosts'] == ['fd://']:\n    del c['hosts']\n"
        "c['hosts'] = []\nc['hosts'] = ['unix:///var/run/docker.sock']\n"),
    "Ansible: a play": ("a.yml", f"- hosts: docker_hosts\n  tasks:\n  - copy: {{dest: {JSON}, content: '{{}}'}}\n"),
    "Ansible: a play, an expression": (
        "a.yml", f"- hosts: '{{{{ target }}}}'\n  tasks:\n  - template: {{src: d.j2, dest: {JSON}}}\n"),
    "Ansible: an inventory": ("a.yml", "docker_daemon:\n  hosts:\n    10.0.0.5:\n    web1:\n      a_port: 2222\n"),
    "Ansible: Redis": ("a.yml", "docker_daemon_options: {log-driver: local}\nredis: {hosts: ['10.0.0.5:6379']}\n"),
    "Filebeat": ("filebeat.yml", "# docker-daemon\noutput.elasticsearch:\n  hosts: ['10.0.0.5:9200']\n"),
    "Filebeat in a script": (
        "a.sh", f"\necho '{{}}' > {JSON}\ncat > f.yml <<E\noutput.elasticsearch:\n  hosts: [\"10.0.0.5:9200\"]\nE\n"),
    "a list of machines in a script": ("a.sh", f"\nhosts='10.0.0.5:22'\nfor h in $hosts; do scp d $h:{JSON}; done\n"),
    "a list of machines in Python": ("a.py", f"hosts = ['10.0.0.5', '10.0.0.6:22']\nscp('d', hosts[0] + ':{JSON}')\n"),
    "Fabric": ("a.py", f"env.hosts = ['10.0.0.5:22']\nput('d', '{JSON}')\n"),
    "a list of machines of Ansible": ("a.yml", "docker_hosts:\n- 10.0.0.5:2222\n"),
    "a client of Python": ("a.py", "# docker\nu = socket.create_connection(('127.0.0.1', 2375))\n"),
    "Terraform": ("a.tf", f'filename = "{JSON}"\ncontent = jsonencode({{ dns = ["10.0.0.5"], hosts = ["fd://"] }})\n'),
    "NixOS": ("a.nix", NIX % 'listenOptions = [ "/run/docker.sock" ]; daemon.settings.dns = [ "10.0.0.5" ]'),
    "a UNIX socket in a variable": ("a.sh", '\nS=unix:///run/docker.sock\nDOCKER_OPTS="-H $S"\ndockerd $DOCKER_OPTS\n'),
    "what a command prints": ("a.sh", "\ndockerd $(echo -H unix:///run/docker.sock)\n"),
    "xargs(1) of others": (
        "a.sh", "\npidof dockerd | xargs kill\nls | xargs grep -l dockerd\necho -H x | xargs docker ps\n"),
    "a program by a variable": ("a.sh", '\n# docker\nX=postgres\nexec "${X}d" -H 10.0.0.5:5432\n'),
    "dockerd by a variable": ("a.sh", "\nX=docker\nexec ${X}d -H unix:///run/docker.sock\n"),
    "yq: a UNIX socket": ("a.sh", f"\nF={JSON}\nyq w -i $F 'hosts[+]' unix:///run/docker.sock\n"),
    "yq: another file": ("a.sh", "\n# docker\nyq w -i inventory.yml 'hosts[+]' tcp://10.0.0.5:4243\n"),
    "a filter of jq": ("a.jq", '# docker\n.hosts |= map(select(.name != "a")) | .hosts += ["web1:8080"]\n'),
    "a filter of jq: a UNIX socket": ("a.jq", '# daemon.json\n.hosts = ["unix:///run/docker.sock"]\n'),
    "options of a client": ("a.sh", '\nDOCKER_OPTS="-H $DOCKER_HOST"\ndocker $DOCKER_OPTS ps\n'),
    "a client in a variable": ("a.sh", '\nD="docker -H $H:2375"\n$D ps\n'),
    "options of curl": ("a.sh", '\n# docker\nCURL_OPTS="-H $HEADER"\ncurl $CURL_OPTS x\n'),
    "options of a web server": (
        "docker/entrypoint.sh", '#!/bin/sh\nARGS="--host 0.0.0.0 --port 8000"\nexec uvicorn app:app $ARGS\n'),
    "options of nfsd": ("etc/default/nfs", '# docker\nRPCNFSDARGS="-H 10.0.0.5 8"\n'),
    "OpenRC as packaged": (
        "etc/init.d/docker", '#!/sbin/openrc-run\ncommand="${DOCKERD_BINARY:-/usr/bin/dockerd}"\n'
        'command_args="-p \\"${pidfile}\\" ${DOCKER_OPTS}"\n'),
    "words in parts": ("a.sh", "\necho \"docker\"'s'\ndocker run \"$(pwd)\":/x -w '/x' i\nprintf 'a\\nb' \"x\"\"y\"\n"),
    "clients of the port": (
        "a.sh", "\ncurl http://127.0.0.1:2375/info\ndocker -H 127.0.0.1:2375 ps\nnc -z x 2375\n[ $a -lt 2375 ]\n"),
    "Traefik as a client": ("traefik.yml", "providers: {docker: {endpoint: 'tcp://127.0.0.1:2375'}}\n"),
    "socat on the loopback address": ("a.sh", "\nsocat TCP-LISTEN:80,bind=127.0.0.1,fork TCP:127.0.0.1:2375\n"),
    "a tunnel of a client": ("a.sh", "\nssh -N -L 4243:127.0.0.1:2375 x\n"),
    "a dashboard": ("docker.yaml", "my-docker:\n  host: dockerproxy\n  port: 2375\n"),
    "a table": ("data.csv", "docker,1\n12 34 56 2375 2376\n"),
}


@pytest.mark.parametrize("name", OPEN)
def test_what_is_open_is_named(name: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_named(tmp_path, call, monkeypatch, *OPEN[name])


@pytest.mark.parametrize("name", HARMLESS)
def test_what_opens_nothing_is_not_named(name: str, tmp_path: Path, call: Call) -> None:
    assert_not_named(tmp_path, call, *HARMLESS[name])


def test_a_variable_of_an_environment_file_that_a_tree_does_not_use_is_named(tmp_path: Path, call: Call) -> None:
    write(tmp_path, {"etc/conf.d/docker": 'DOCKER_OPTS=\ncommand_args="-H 10.0.0.5:4243"\n'})
    said = call("lint", "--root", tmp_path)
    assert said.code == 2 and "/etc/conf.d/docker:2: names a TCP address" in said.err, said.out + said.err


@pytest.mark.parametrize("text", [
    ".hosts = ", "hosts = [ ", "hosts: - ", '"hosts": [a, ', f'"hosts": {"-" * 200}', f'"hosts": {"{{ " * 20}',
    'hosts="$a"\n',
    "host ['",
    "--arg a b ", "docker_opts: -H unix:\n", "DOCKER_OPTS=-H unix:$x ", "docker_opts: " + "-D\n" * 50, "fd://#",
    '"a:1", "fd://',
    'd""o""c', "dock\\\nerd ", 'a"', "'a'b", "D=dockerd\n$D -", f"a={'/' * 90}", "servers a:        ", "server x:237 ",
    "servers: - - [[a]] 2375 ", "ListenStream: ", "docker_service host [",
    "connect 2375 bind(", "systemd-socket-activate -l a "])
@pytest.mark.parametrize("path", ["docker/a.rb", "daemon.json.erb"])
def test_long_texts_end_soon(text: str, path: str) -> None:
    def work() -> None:
        unread_hosts.first_way(path, f"docker daemon.json dockerd {text * 400_000}"[:1 << 20])

    check_cpu_time(work, 2)
