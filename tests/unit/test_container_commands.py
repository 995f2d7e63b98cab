"""Commands that run containers, in text that is not evaluated: which of them hand the API socket to the network."""

from __future__ import annotations

import time

import pytest

from dockerd_guard.observe.container_commands import first_exposed

S, V = "/run/docker.sock:/x", "-v /run/docker.sock:/x"

EXPOSED: dict[str, str] = {
    "attached values": f"docker run -v{S} -p80:80 i",
    "letters together": f"docker run -itp 80:80 -dv {S} i",
    "an equals sign": f"docker run -p=80:80 --volume={S} i",
    "--mount": "podman run --mount type=bind,src=/run/podman/podman.sock,dst=/x --publish=80:80 i",
    "the network of the host": f"docker run --net host {V} i",
    "the network of the host, quoted": f'docker run --network="host" --volume="{S}" i',
    "the root directory": "docker run -v /:/host:ro --network=host i",
    "a directory with the socket": "docker run -v /run:/run -P i",
    "--use-api-socket": "docker run --use-api-socket -p 80:80 i",
    "a service of Swarm": "docker service create --mount type=bind,source=/run/docker.sock,target=/x --publish 80:80 i",
    "several lines": f"docker run \\\n\n -p 80:80 \\\n {V} i",
    "several lines of PowerShell": f"docker run `\n -p 80:80 `\n {V} i",
    "a folded block of YAML": f"command: >\n  docker run -d\n  -p 80:80\n  {V}\n  i\n",
    "a list of YAML": "argv:\n- docker\n- run\n- -p\n- '80:80'\n- -v\n- /run/docker.sock:/x\n",
    "a quoted list of YAML": '  - "run"\n  - "-p"\n  - "80:80"\n  - "-v"\n  - "/run/docker.sock:/x"\n',
    "a list of JSON": f'["docker","run","-p","80:80","-v","{S}","i"]',
    "a list of JSON in several lines": f'[\n"docker",\n"run",\n"-p",\n"80:80",\n"-v", "{S}"]',
    "a command in a string": f'inline = ["docker run -e \\"A=b c\\" -p 80:80 {V} i", "x"]',
    "quoted values with blanks": f"docker run -e 'A=b c' --label \"d=e f\" {V} -p '80:80' i",
    "a command within a value": f'docker run --name $(hostname -f) -u "$(id -u):$(id -g)" -p 80:80 {V} i',
    "an array": f'args=(-d\n -p 80:80\n {V})\ndocker run "${{args[@]}}" i',
    "a variable with the path": "S=/run/docker.sock\ndocker run -v $S:$S -p80:80 i",
    "a variable with several values": f"P=81:81\nP=80:80\ndocker run -p $P {V} i",
    "a variable that is extended": f'O="-p 80:80"\nO+=" {V}"\ndocker run $O i',
    "variables in variables": f'P="-p 80:80"\nO="$P {V}"\ndocker run $O i',
    "a variable of systemd": f'Environment="OPTS=-p 80:80 {V}"\nExecStart=docker run $OPTS i',
    "a variable of a playbook": f'opts: "{V} -p 80:80"\nx: docker run {{{{ opts }}}} i',
    "expressions of templates": 'docker run -p {{ port }}:80 -v {{ s | default("/run/docker.sock") }}:/x i',
    "an option of another program": f"podman run --replace -p 80:80 {V} i",
    "within another command": f"systemd-run --scope docker run -p 80:80 {V} i",
    "a program from a variable": f"$DOCKER run -dp 80:80 {V} i",
    "a Vagrantfile": f'd.run "i",\n  args: "-p 80:80 {V}"\n',
    "a Jenkinsfile": f"docker {{ image 'i'; args '{V} -p 80:80' }}",
    "a job of GitHub": f'container: {{image: i, options: "-p 80:80 {V}"}}',
    "the second command of a line": f"docker run -p 80:80 i; docker run -P {V} i",
}

INSIDE: dict[str, str] = {
    "two commands": f"docker run {V} i\ndocker run -p 80:80 i\n",
    "two commands in a line": f"docker run {V} i && docker run -p 80:80 i\n",
    "two commands in a list": f'["docker run -p 80:80 i", "docker run {V} i"]',
    "two lists of YAML": f"- - docker\n  - run\n  - -p\n  - 80:80\n- - docker\n  - run\n  - -v\n  - {S}\n",
    "arguments of the program in the container": f"docker run {V} i -p 80:80\n",
    "a container that runs another": f"docker run {V} docker:cli docker run -p 80:80 nginx\n",
    "a Vagrantfile": f'd.run "i", args: "-p 80:80"\nd.run "j", args: "{V}"\n',
    "UDP": f"docker run {V} -p 53:53/udp i\n",
    "a volume without a name": "docker run -v /run -p 80:80 i\n",
    "tmpfs": "docker run -p 80:80 --mount type=tmpfs,destination=/run --tmpfs /run:size=1 i",
    "another network": f"docker run {V} --network hostile -w /p i\n",
    "no command": "mkdir -p /run; run docker -v /var/run/docker.sock\n",
}


@pytest.mark.parametrize("name", EXPOSED)
def test_a_container_that_hands_the_socket_to_the_network_is_found(name: str) -> None:
    assert first_exposed(EXPOSED[name]) is not None


@pytest.mark.parametrize("name", INSIDE)
def test_another_container_is_not_found(name: str) -> None:
    assert first_exposed(INSIDE[name]) is None


def test_the_place_is_that_of_the_command() -> None:
    assert first_exposed(f"docker run i\ndocker run -p 80:80 {V} i") == 20


def test_values_beyond_the_limit_count_as_exposed() -> None:
    assert first_exposed(f"A='{'x ' * 1900}'\n" + "docker run $A $A -p\n" * 20) is not None


@pytest.mark.parametrize("text", ["run -e ", 'run "', "run -e $A ", 'A="b" ', "run {{", "- run\n- -p\n", "run -p $( ",
                                  "run \\\n", "\n", 'run -p "a",', "A=$A run $A "])
def test_long_texts_end_soon(text: str) -> None:
    def seconds(length: int) -> float:
        begin = time.process_time()
        first_exposed((text * length)[:length] + " -p")
        return time.process_time() - begin

    assert seconds(1 << 20) < 4
