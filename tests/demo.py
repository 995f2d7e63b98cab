"""`make demo`: an exposure and its correction on a real machine.

Each statement is checked independently of the agent (from another network namespace, in the kernel, in the journal)
before it is printed. The exit code is 0 only if all checks passed.
"""

from __future__ import annotations

import json
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.machines import host, image
from tests.machines.machine import ADDRESS, CommandFailed, Machine, wait_for

RELEASE = "bookworm"

PATIENCE_SECONDS = 120
"""dockerd itself waits 16 s before it opens TCP without TLS, and slow machines take longer."""

POLICY = "/etc/dockerd-guard/config.yaml"
DROP_IN = "/etc/systemd/system/docker.service.d/zz-dockerd-guard.conf"

CERTIFICATES = f"""
set -e
mkdir -p /etc/docker && cd /etc/docker && umask 077
exec 2>/dev/null
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=demo-ca -keyout ca-key.pem -out ca.pem \\
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
issue() {{  # NAME EXTENSIONS
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$1" -keyout "$1-key.pem" -out "$1.csr"
    printf '%s\\n' "$2" > "$1.ext"
    openssl x509 -req -days 30 -in "$1.csr" -CA ca.pem -CAkey ca-key.pem -CAcreateserial \\
        -out "$1-cert.pem" -extfile "$1.ext"
    rm "$1.csr" "$1.ext"
}}
issue server "subjectAltName=IP:{ADDRESS}
extendedKeyUsage=serverAuth"
issue client "extendedKeyUsage=clientAuth"
"""


class NotSeen(Exception):
    """A check of the demo failed."""


def main(package: Path) -> int:
    began = time.monotonic()
    try:
        host.prepare_machines()
        image.base(RELEASE)
        with Machine.boot(RELEASE) as machine:
            try:
                Story(machine, package).run()
            except (NotSeen, CommandFailed, TimeoutError) as error:
                print(f"\n✗ Not seen: {error}\n", file=sys.stderr)
                log = machine.run("journalctl --boot --lines=40 --unit=dockerd-guard", check=False)
                print(f"The end of the agent's journal:\n{log.out}{log.err}", file=sys.stderr)
                return 1
    except (host.Unfit, image.BuildFailed) as error:
        print(f"The demo cannot run here. {error}", file=sys.stderr)
        return 2
    except (RuntimeError, TimeoutError) as error:
        print(f"The machine did not start: {error}\n{host.INSTEAD}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The machine was removed.", file=sys.stderr)
        return 130
    print(f"\nAll checks passed in {time.monotonic() - began:.0f} s. The machine was removed.")
    print("To open a shell in such a machine: make machine")
    return 0


class Story:
    """The steps of the demo, in order. Each raises if one of its checks fails."""

    def __init__(self, machine: Machine, package: Path) -> None:
        self.machine = machine
        self.package = package
        self.container = 0

    def run(self) -> None:
        self.a_host_as_it_should_be()
        self.the_agent_is_installed()
        self.the_guide_is_followed()
        self.the_policy_is_enforced()
        self.the_journal()
        self.the_guide_again()
        self.a_socket_is_declared()

    def a_host_as_it_should_be(self) -> None:
        machine = self.machine
        version = machine.run(["docker", "version", "--format", "{{.Server.Version}}"]).out.strip()
        systemd = machine.run("systemctl --version").out.split()[1]
        title(f"A Debian {machine.release}, just booted: systemd {systemd} is PID 1, dockerd {version} runs")
        explain(f"Its address is {ADDRESS}. 'From outside' is another network namespace, connected by a veth pair. "
                "Live-restore is enabled, and a container runs.")
        machine.write("/etc/docker/daemon.json", '{\n  "live-restore": true\n}\n')
        self.do("systemctl reload docker")
        wait_for(lambda: "true" in machine.run("docker info --format '{{.LiveRestoreEnabled}}'").out,
                 "live-restore")
        self.container = machine.start_container("bystander")
        seen(self.container > 0, f"the container runs, its first process is PID {self.container}")
        seen(machine.socket_answers(), "the Docker API answers on /run/docker.sock")
        seen(not machine.api_answers(), f"from outside, {ADDRESS}:2375 refuses")

    def the_agent_is_installed(self) -> None:
        machine = self.machine
        title(f"{self.package.name} is installed")
        explain("Its policy: the API listens on fd:// (the sockets of docker.socket) and nowhere else; mode: observe. "
                "The installation changes and restarts nothing.")
        dockerd = machine.main_pid()
        machine.install(self.package)
        self.do(f"grep -v -e '^ *#' -e '^$' {POLICY}")
        wait_for(lambda: machine.is_active("dockerd-guard.service"), "running agent")
        seen(machine.main_pid() == dockerd, f"dockerd was not restarted: still PID {dockerd}")
        seen(not machine.journal("--unit=dockerd-guard", "DOCKERD_GUARD_EVENT=drift"), "no drift to report")

    def the_guide_is_followed(self) -> None:
        machine = self.machine
        title("Somebody follows the usual guide to make Docker reachable over the network")
        explain("The guide: add -H=tcp://0.0.0.0:2375 to ExecStart= in docker.service, then run three commands. "
                "dockerd delays its start by 16 s as a warning.")
        unit = machine.properties("docker.service", "FragmentPath")["FragmentPath"]
        self.do(f"sed -i '/^ExecStart=/s|$| -H=tcp://0.0.0.0:2375|' {unit}")
        self.do(f"grep ^ExecStart= {unit}")
        self.do("systemctl daemon-reload")
        with progress("dockerd restarts"):
            self.do("systemctl restart docker")
        self.do("ps -ef | grep docker | grep -v grep", lines=6)
        asked = machine.outside(f"curl --silent --max-time 10 http://{ADDRESS}:2375/version", check=False)
        version = json.loads(asked.out or "{}").get("Version")
        seen(version is not None, f"from outside, anybody is root here now: {ADDRESS}:2375 answers, "
                                  f"Docker {version}")
        entries = wait_for(lambda: self.entries("drift"), "drift in the journal", timeout=PATIENCE_SECONDS)
        layers = {entry.get("DOCKERD_GUARD_LAYER") for entry in entries}
        seen(True, f"the agent has detected it (layers: {', '.join(sorted(filter(None, layers)))}):")
        for entry in entries:
            quote(entry["MESSAGE"])
        seen(not machine.exists(DROP_IN), "and has changed nothing, as in mode: observe")

    def the_policy_is_enforced(self) -> None:
        machine = self.machine
        title("The policy is changed to mode: enforce")
        before = machine.main_pid()
        self.do(f"sed -i 's/^mode: observe/mode: enforce/' {POLICY}")
        began = time.monotonic()
        with progress("the agent corrects files, reloads, restarts, verifies"):
            self.do("systemctl reload dockerd-guard")
            wait_for(lambda: not machine.api_answers(), "refusal from outside", timeout=PATIENCE_SECONDS)
            took = time.monotonic() - began
            self.corrected(1)
        seen(True, f"from outside, {ADDRESS}:2375 refuses again, {took:.1f} s after the reload")
        wait_for(machine.socket_answers, "answer on /run/docker.sock", timeout=PATIENCE_SECONDS)
        seen(True, "the API answers on /run/docker.sock")
        seen(machine.main_pid() not in (0, before), "dockerd was restarted")
        self.container_lives()
        explain("The correction is a drop-in of the agent. The edited unit is unchanged:")
        self.do(f"cat {DROP_IN}")

    def the_journal(self) -> None:
        title("The journal")
        self.do("journalctl -u dockerd-guard -o short-iso --no-hostname")
        entry = self.entries("corrected")[-1]
        fields = {name: value for name, value in entry.items()
                  if name.startswith("DOCKERD_GUARD_") or name in ("MESSAGE", "MESSAGE_ID", "PRIORITY",
                                                                   "OBJECT_SYSTEMD_UNIT")}
        explain("One entry with its fields (journalctl -u dockerd-guard -o json), its own fields only:")
        quote(json.dumps(dict(sorted(fields.items())), indent=1, ensure_ascii=False))
        seen(entry["DOCKERD_GUARD_OUTCOME"] == "repaired", "the outcome is a field: repaired")
        both = self.machine.journal("--unit=docker.service", "DOCKERD_GUARD_EVENT=corrected")
        seen(len(both) > 0, "journalctl -u docker shows it too")

    def the_guide_again(self) -> None:
        machine = self.machine
        title("The same change again, by a drop-in as of systemctl edit docker, with the policy in force")
        corrections = self.corrections()
        self.do("mkdir -p /etc/systemd/system/docker.service.d && "
                "printf '[Service]\\nExecStart=\\n"
                "ExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375\\n' "
                "> /etc/systemd/system/docker.service.d/override.conf")
        with progress("the agent corrects the files before Docker restarts"):
            self.corrected(corrections + 1)
        self.do("systemctl daemon-reload && systemctl restart docker")
        seen(not machine.api_answers(), f"from outside, {ADDRESS}:2375 still refuses")
        seen(machine.socket_answers(), "the API answers on /run/docker.sock")
        self.container_lives()

    def a_socket_is_declared(self) -> None:
        machine = self.machine
        title("A TCP socket with mutual TLS is declared")
        explain("openssl creates the certificates: a CA, one for the server, one for a client.")
        machine.run(["sh", "-c", CERTIFICATES])
        for name in ("ca", "client-cert", "client-key"):
            pem = machine.read(f"/etc/docker/{name}.pem")
            machine.outside(["sh", "-c", "mkdir -p /root/.docker && cat > /root/.docker/$0",
                             f"{name.removeprefix('client-')}.pem"], input=pem)
        policy = machine.read(POLICY)
        declared = f"  - address: tcp://{ADDRESS}:2376\n    tls: mutual\n"
        lines = policy.splitlines(keepends=True)
        last = next(number for number, line in enumerate(lines) if line.startswith("  - fd://"))
        # Counted before: the agent reads a policy as soon as it is saved.
        corrections = self.corrections()
        machine.write(POLICY, "".join([*lines[:last + 1], declared, *lines[last + 1:]]))
        self.do(f"grep -v -e '^ *#' -e '^$' {POLICY}")
        with progress("the agent adds the socket, with flags and certificates"):
            self.do("systemctl reload dockerd-guard")
            self.corrected(corrections + 1)
        client = f"docker --tlsverify -H tcp://{ADDRESS}:2376 version --format '{{{{.Server.Version}}}}'"
        version = machine.outside(client, check=False)
        show("outside$", client, version.out + version.err)
        seen(version.status == 0, "from outside, a client with a certificate is accepted")
        machine.outside("mv /root/.docker/cert.pem /root/.docker/key.pem /tmp")
        refused = machine.outside(client, check=False)
        show("outside$", f"{client}    # certificate taken away", refused.out + refused.err)
        seen(refused.status != 0 and "certificate" in refused.err, "without one it is refused")
        plain = machine.outside(f"curl --silent --insecure --max-time 10 https://{ADDRESS}:2376/_ping",
                                check=False)
        seen(plain.out != "OK", "a client that does not verify and has no certificate is refused")
        seen(not machine.api_answers(2376), "a client without TLS is refused")
        seen(machine.socket_answers(), "the API answers on /run/docker.sock")
        self.container_lives()
        self.do("dockerd-guard sockets")

    # Helpers

    def do(self, command: str, *, lines: int = 40) -> None:
        """Run a command in the machine and print it with its output."""
        done = self.machine.run(command)
        out = (done.out + done.err).splitlines()
        show("#", command, "\n".join(out[:lines]))

    def container_lives(self) -> None:
        now = self.machine.container_pid("bystander")
        seen(now == self.container, f"the container still runs: PID {now}")

    def entries(self, event: str) -> list[dict[str, Any]]:
        return self.machine.journal("--unit=dockerd-guard", f"DOCKERD_GUARD_EVENT={event}")

    def corrected(self, times: int) -> None:
        """Wait until the journal has that many corrections."""
        wait_for(lambda: self.corrections() >= times, f"{times}. correction in the journal", timeout=PATIENCE_SECONDS)

    def corrections(self) -> int:
        """Count the corrections in the journal. A drift that ended otherwise is an entry of the same event."""
        return len([entry for entry in self.entries("corrected") if entry.get("DOCKERD_GUARD_OUTCOME") == "repaired"])


def title(text: str) -> None:
    print(f"\n━━ {text}", flush=True)


def explain(text: str) -> None:
    print(textwrap.fill(text, 100), flush=True)


def show(prompt: str, command: str, output: str) -> None:
    print(f"   {prompt} {command}")
    quote(output)


def quote(text: str) -> None:
    for line in text.splitlines():
        print(f"     {line}", flush=True)


def seen(truth: bool, claim: str) -> None:
    """Print a statement if it is true, else raise NotSeen."""
    if not truth:
        raise NotSeen(claim)
    print(f" ✓ {claim}", flush=True)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Print the elapsed time while the block runs."""
    began = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        while not done.wait(1):
            if sys.stdout.isatty():
                print(f"\r   … {what}: {time.monotonic() - began:.0f} s", end="", flush=True)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        clear = "\r\033[K" if sys.stdout.isatty() else ""
        print(f"{clear}   … {what}: {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
