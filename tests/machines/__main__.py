"""Manage machines: `python3 -m tests.machines shell trixie --package dist/*.deb`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.machines import box, host, image
from tests.machines.machine import ADDRESS, OUTSIDE_ADDRESS, CommandFailed, Machine

WELCOME = """\
You are root on a throwaway Debian {release}: systemd is PID 1, dockerd runs, and {agent}.

  this machine      {address} on eth0; its disk is removed when you leave{kept}
  the outside       {outside}: from another terminal, python3 -m tests.machines outside {name} curl http://{address}:2375/_ping
  the policy        /etc/dockerd-guard/config.yaml, then systemctl reload dockerd-guard
  its output        journalctl -u dockerd-guard -f; systemctl status dockerd-guard; dockerd-guard sockets
  a container       docker run -d --init busybox /bin/sleep 1000000
  the usual guide   cd /lib/systemd/system; sed -i 's|^ExecStart=.*|& -H=tcp://0.0.0.0:2375|' docker.service
                    systemctl daemon-reload; systemctl restart docker"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.machines", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("prepare", help="install what this host needs to boot machines")
    package = verbs.add_parser("prepare-packages", help="install these packages where they are missing")
    package.add_argument("packages", nargs="+")
    build = verbs.add_parser("build", help="build the disks of these releases into the cache")
    build.add_argument("releases", nargs="*", help=f"one of {', '.join(image.RELEASES)}; default: all")
    shell = verbs.add_parser("shell", help="boot a machine and give a shell in it; or enter one that is kept")
    shell.add_argument("which", help="a release, or the name of a kept machine")
    shell.add_argument("--package", type=Path, help="a .deb to install in it")
    verbs.add_parser("list", help="list the running machines")
    stop = verbs.add_parser("stop", help="stop a kept machine")
    stop.add_argument("name")
    for verb in ("run", "outside"):
        where = "in" if verb == "run" else "on the host outside"
        each = verbs.add_parser(verb, help=f"run a command {where} a machine")
        each.add_argument("name")
        each.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    try:
        return _do(arguments)
    except (host.Unfit, image.BuildFailed, LookupError, OSError, CommandFailed) as error:
        print(error, file=sys.stderr)
        return 1


def _do(arguments: argparse.Namespace) -> int:
    match arguments.verb:
        case "prepare":
            host.prepare_machines()
        case "prepare-packages":
            host.prepare(*arguments.packages)
        case "build":
            host.prepare_machines()
            for release in arguments.releases or image.RELEASES:
                image.base(release)
        case "shell":
            return _shell(arguments.which, arguments.package)
        case "list":
            for name in box.names():
                print(name)
        case "stop":
            Machine.attach(arguments.name).close()
        case "run" | "outside":
            machine = Machine.attach(arguments.name)
            command = machine.command if arguments.verb == "run" else machine.outside_command
            return subprocess.run(command(*arguments.command), check=False).returncode
    return 0


def _shell(which: str, package: Path | None) -> int:
    if which not in image.RELEASES:
        return _interactive(Machine.attach(which), agent="it is as the test left it", kept=f" it to: "
                            f"python3 -m tests.machines stop {which}")
    host.prepare_machines()
    with Machine.boot(which, package=package) as machine:
        if machine.run("docker image inspect busybox", check=False).status:
            machine.import_busybox()
        agent = "no agent is installed" if package is None else f"the agent of {package.name} observes it"
        return _interactive(machine, agent=agent, kept="")


def _interactive(machine: Machine, *, agent: str, kept: str) -> int:
    print(WELCOME.format(release=machine.release, agent=agent, name=machine.name, address=ADDRESS,
                         outside=OUTSIDE_ADDRESS, kept=kept), flush=True)
    prompt = f"PS1=[{machine.release}] \\w # "
    return subprocess.run(machine.command("env", prompt, f"TERM={os.environ.get('TERM', 'dumb')}",
                                          "bash", "--norc", "-i"), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
