"""`make demo` where no machine can be booted: the part of the linter, on a tree of files. Needs no root rights.

Each statement is checked before it is printed. The exit code is 0 only if all checks passed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.demo import NotSeen, explain, seen, show, title

TOP = Path(__file__).resolve().parents[1]

ROOT = "host"
OVERRIDE = "etc/systemd/system/docker.service.d/override.conf"
DROP_IN = "etc/systemd/system/docker.service.d/zz-dockerd-guard.conf"
DAEMON_JSON = "etc/docker/daemon.json"

TREE = {
    "policy.yaml": "version: 1\nmode: enforce\nsockets:\n  - fd://   # the sockets of docker.socket\n",
    f"{ROOT}/usr/lib/systemd/system/docker.service": """\
[Unit]
Requires=docker.socket
[Service]
Type=notify
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock
ExecReload=/bin/kill -s HUP $MAINPID
""",
    f"{ROOT}/usr/lib/systemd/system/docker.socket": """\
[Socket]
ListenStream=/run/docker.sock
SocketMode=0660
SocketUser=root
SocketGroup=docker
""",
    f"{ROOT}/{DAEMON_JSON}": '{\n  "live-restore": true\n}\n',
}

BY_UNIT = "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375\n"
BY_DAEMON_JSON = '{\n  "live-restore": true,\n  "hosts": ["unix:///var/run/docker.sock", "tcp://0.0.0.0:2375"]\n}\n'

NOT_SHOWN = (
    "where Docker really listens: what systemd has loaded, the arguments of dockerd, the sockets in the kernel",
    "the agent: it detects a change within a second and reports it in the journal, with file and line",
    "a correction that restarts Docker while the containers keep running, its verification, and its rollback",
    "a port that is blocked at the network until the correction is complete",
)


def main() -> int:
    if find_spec("yaml") is None:
        print("The demo needs PyYAML: install python3-yaml, or run this with a Python that has it:\n"
              "  python3 -m venv DIR; DIR/bin/pip install PyYAML; DIR/bin/python -m tests.demo_files", file=sys.stderr)
        return 2
    print("No machine can be booted here: this is the part of the linter, on files.")
    with tempfile.TemporaryDirectory(prefix="dockerd-guard-demo-") as directory:
        try:
            Story(Path(directory)).run()
        except NotSeen as error:
            print(f"\n✗ Not seen: {error}", file=sys.stderr)
            return 1
    print("\nAll checks passed. Not shown, since it needs a booted machine (`make demo` as root, Debian 12 or newer):")
    for what in NOT_SHOWN:
        print(f" - {what}")
    return 0


class Story:
    """The steps, in order, in a directory that contains the tree. Each raises NotSeen if one of its checks fails."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for path, text in TREE.items():
            self.write(path, text)

    def run(self) -> None:
        title("The files of a host with Docker, and a policy")
        self.do("cat policy.yaml")
        code, _ = self.lint()
        seen(code == 0, "the files comply with the policy")

        title("Somebody follows the usual guide: systemctl edit docker")
        self.follow(OVERRIDE, BY_UNIT, "[DG103]")
        self.do(f"dockerd-guard sockets --root {ROOT}")
        self.fix(DROP_IN)
        seen(self.read(OVERRIDE) == BY_UNIT, "the drop-in of the guide is unchanged: another one overrides it")
        self.do(f"dockerd-guard sockets --root {ROOT}")

        title("Somebody follows the other guide: hosts in daemon.json")
        explain("With -H in docker.service too, dockerd does not start.")
        self.follow(DAEMON_JSON, BY_DAEMON_JSON, "[DG201]")
        self.fix(DAEMON_JSON)
        seen(self.read(f"{DAEMON_JSON}.dockerd-guard-saved") == BY_DAEMON_JSON, "the previous file is kept")

    def follow(self, path: str, text: str, code: str) -> None:
        """Change a file and lint it."""
        self.write(f"{ROOT}/{path}", text)
        self.do(f"cat {ROOT}/{path}")
        status, said = self.lint()
        seen(status == 1 and code in said and f"/{path}:" in said, f"found, with file and line: {code[1:-1]}")

    def fix(self, path: str) -> None:
        """Show the difference, apply it, and lint the result."""
        status, difference = self.do(f"dockerd-guard diff --root {ROOT} --policy policy.yaml")
        seen(status == 1 and f"+++ b/{path}" in difference, "the change that fixes it is known")
        patch = ["patch", "--quiet", "--strip=1"] if shutil.which("patch") else ["git", "apply"]
        show("$", f"cd {ROOT}; {' '.join(patch)}   # the output above", "")
        done = subprocess.run(patch, cwd=self.directory / ROOT, input=difference, text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise NotSeen(f"the difference can be applied: {done.stdout}")
        self.do(f"cat {ROOT}/{path}")
        status, _ = self.lint()
        seen(status == 0, "the files comply with the policy again")

    def lint(self) -> tuple[int, str]:
        return self.do(f"dockerd-guard lint --root {ROOT} --policy policy.yaml")

    def do(self, command: str) -> tuple[int, str]:
        """Run a command in the directory, print it with its output, and return its exit code and output."""
        program, *words = command.split()
        argv = [sys.executable, "-m", "dockerd_guard", *words] if program == "dockerd-guard" else [program, *words]
        done = subprocess.run(argv, cwd=self.directory, text=True, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(TOP)})
        show("$", command, done.stdout)
        return done.returncode, done.stdout

    def read(self, path: str) -> str:
        return (self.directory / ROOT / path).read_text()

    def write(self, path: str, text: str) -> None:
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o644)


if __name__ == "__main__":
    sys.exit(main())
