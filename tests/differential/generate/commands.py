"""Values of ExecStart=: quoting, variables, specifiers, prefixes, wrappers and shells (systemd.service(5))."""

from __future__ import annotations

from tests.differential.generate.daemon_options import BAD_FLAGS, DaemonOptions

OPTION_VARIABLES = ("DOCKER_OPTS", "OPTIONS", "DOCKER_STORAGE_OPTIONS", "DOCKER_NETWORK_OPTIONS", "OPTS",
                    "DOCKER_HOSTS")
SET_BY_SYSTEMD = ("MAINPID", "LISTEN_FDS", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "INVOCATION_ID",
                  "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", "USER", "LOGNAME", "SHELL",
                  "MEMORY_PRESSURE_WATCH",
                  "SYSTEMD_EXEC_PID", "MANAGERPID", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "PIDFILE", "REMOTE_ADDR")
PREFIXES = ("-", "@", ":", "+", "!", "!!", "-:", ":-", "+-", "@-", "-@", ":@", "|", "-|", "!+", "!!!", "--", "::",
            "++", "|:")
SPECIFIERS = ("%n", "%N", "%p", "%i", "%t", "%S", "%C", "%L", "%E", "%T", "%V", "%h", "%s", "%u", "%U", "%g", "%G",
              "%H", "%l", "%m", "%%", "%f", "%j", "%J", "%I", "%P", "%y", "%Y", "%d", "%D", "%o", "%w", "%W", "%B",
              "%A", "%M", "%a", "%z", "%k", "%q", "%c", "%r", "%R", "%1", "%_", "%", "% ", "%{x}", "%é", "%X", "%e",
              "%x")
ESCAPES = ("\\n", "\\t", "\\s", "\\x41", "\\101", "\\u00e9", "\\U0001F433", "\\\\", '\\"', "\\'", "\\q", "\\x4", "\\0",
           "\\000",
           "\\x00", "\\400", "\\;", "\\$", "\\ ", "\\a", "\\xff", "\\377", "\\ud800", "\\uffff", "\\u004", "\\v", "\\")
WRAPPERS = (
    "/usr/bin/env", "/usr/bin/env A=b", "/usr/bin/env -u A", "/usr/bin/env -i", "/usr/bin/env - PATH=/usr/bin",
    "/usr/bin/env --", "/usr/bin/nice", "/usr/bin/nice -n 5", "/usr/bin/nice -n5", "/usr/bin/nice --adjustment=5",
    "/usr/bin/nohup", "/usr/bin/setsid", "/usr/bin/setsid -w", "/usr/bin/stdbuf -oL", "/usr/bin/stdbuf -o L",
    "/usr/bin/timeout 60", "/usr/bin/timeout -k 5 60", "/usr/bin/timeout --foreground 60", "/usr/bin/ionice -c 2 -n 7",
    "/usr/bin/ionice -c2", "/usr/bin/chrt -o 0", "/usr/bin/taskset 1", "/usr/bin/taskset -c 0",
    "/usr/bin/env nice -n 5", "/usr/bin/env A=b sh -c 'exec \"$$0\" \"$$@\"'", "/usr/bin/nice /usr/bin/env -u HOME",
    "/usr/bin/env -u LISTEN_FDS", "/usr/bin/env -uA B=c", "/usr/bin/env --unset=LISTEN_FDS", "/usr/bin/env -C /tmp",
    "/usr/bin/env --chdir=/tmp", "/usr/bin/env -S 'nice -n 5'", "/usr/bin/env -i nice", "/usr/bin/env -v",
    "/usr/bin/nice -5", "/usr/bin/nice --", "/usr/bin/nice nice", "/usr/bin/setsid -f", "/usr/bin/stdbuf --output=L",
    "/usr/bin/stdbuf -oL -eL", "/usr/bin/timeout -s KILL 60", "/usr/bin/timeout --signal=TERM 1m",
    "/usr/bin/timeout -k5 60", "/usr/bin/ionice -c 3", "/usr/bin/ionice", "/usr/bin/chrt --batch 0",
    "/usr/bin/taskset 0xff", "/usr/bin/taskset -a 1", "/usr/bin/prlimit -n512", "/usr/bin/systemd-cat",
    "/usr/bin/systemd-cat -t docker", "/usr/bin/flock /tmp/x.lock", "/usr/bin/choom -n 0 --", "/usr/bin/unshare -m",
    "/usr/sbin/chroot /", "/usr/bin/setpriv --nnp", "/usr/bin/xargs -a /dev/null",
)
SHELLS = ("/bin/sh -c", "/bin/sh -c", "/bin/sh -c", "/bin/bash -c", "/bin/sh -ec", "/bin/sh -e -c", "/bin/bash -lc",
          "/usr/bin/env sh -c", "/bin/sh -xc", "/bin/bash -o pipefail -c", "@/bin/sh any -c", "/bin/dash -c",
          "/bin/sh -euc", "/bin/sh -o errexit -c", "/bin/bash +x -c", "/bin/bash --norc -c", "/usr/bin/nice sh -c",
          "/bin/sh -c --", "sh -c", "/usr/bin/env -i sh -c", "/bin/bash -O extglob -c", "/bin/rbash -c")
BEFORE_IN_SCRIPT = (
    "", "", "exec ", "exec ", "exec ", "set -e; exec ", "export A=b; exec ", "A=b ", "A=b exec ", "A=b; exec ",
    "export A; ", "export A=b B='c d'; exec ", "true && exec ", "true; ", "mkdir -p /x && exec ", "[ -f /x ] || exec ",
    "if true; then ", "umask 022; exec ", ". /etc/default/docker; exec ", "false || ", "  exec  ", "# note\\nexec ",
    "cd / && exec ", "A='-H fd://'; exec ", "A=$$B; exec ", "unset A; exec ", "exec nice ", "exec env A=b ", "! ",
    "false && ", "(", "{ ", "set -- -D; exec ", "trap '' HUP; exec ",
    "PATH=$$PATH:/opt/bin; exec ", "export PATH=/usr/bin:$$PATH; exec ", "PATH=/usr/bin:$$PATH exec ",
    "unset LISTEN_FDS; exec ", "unset A B && exec ", "exec nohup ", "command exec ", "exec -a any ",
    "env -u LISTEN_FDS ", "nohup ", "eval exec ", "sleep 0; exec ", "ulimit -n 1024; exec ",
    "test -d / || exit 1; exec ", "A=b || exec ", "export A=b || exec ", "A=b & exec ", "for h in 1; do exec ",
    "A=b exec env ", "echo $$A >/dev/null; exec ", "unset 1A; exec ", "LISTEN_FDS=; exec ", "exec /usr",
    "A=$$HOME/x; exec ", "readonly A=b; exec ", "mkdir -p /x;exec ", "exec;exec ", "exec 2>&1; exec ", ":; exec ",
)
AFTER_IN_SCRIPT = ("", "", "", "", "", "", " 2>&1", " >/dev/null 2>&1", " && true", " || true", " # note", " &",
                   "; true", " | cat", ";", " ;;", "; fi", ")", "; }", "\\n", " &&", ' "$$@"', " $$*",
                   "; exec dockerd -D")


class Commands(DaemonOptions):
    """Generates command lines."""

    def quoted(self, word: str) -> str:  # noqa: PLR0911
        """Return a word quoted for ExecStart=, not always correctly."""
        if not word:
            return self.one(('""', "''"))
        needs = any(each in word for each in " \t\"'\\;$%") or word.startswith("#")
        if not needs and self.chance(0.9):
            return word
        kind = self.weighted({"bare": 3 if needs else 1, "double": 6, "single": 3, "within": 2, "escaped": 2})
        if kind == "bare":
            return word
        if kind == "double":
            return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if kind == "single":
            return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"
        at = self.random.randrange(len(word))
        if kind == "within":
            return word[:at] + '"' + word[at:].replace('"', "'") + '"'
        return word[:at] + f"\\x{ord(word[at]) & 0x7F:02x}" + word[at + 1:]

    def command(self, arguments: list[str] | None = None) -> str:
        """Return a value of ExecStart=."""
        plain = self.arguments() if arguments is None else arguments
        if self.chance(0.1):
            return self.wrapped(plain)
        words = [self.quoted(word) for word in plain]
        for _ in range(self.random.choices((0, 1, 2), (70, 22, 8))[0]):
            words.insert(self.random.randrange(len(words) + 1), self.oddity())
        executable = self.program()
        if self.chance(0.07):
            executable = self.one(PREFIXES) + executable
            if "@" in executable:
                words.insert(0, self.one(("dockerd", "docker-daemon", "docker", "any", "/bin/sh", "/usr/bin/dockerd",
                                          "$A", "%n")))
        separator = self.weighted({" ": 80, "  ": 4, "\t": 2, " \\\n": 6, " \\\n    ": 6, " \\\n# comment\n  ": 1.5,
                                   "\\\n": 0.3, " \\ \n": 0.6, " \\\n\n": 0.4, " \\\n  ; not\n  ": 0.5, " \\\r\n": 0.3,
                                   " \\\\\n": 0.2})
        if separator == " " or len(words) < 2:
            return " ".join([executable, *words])
        at = self.random.randrange(1, len(words) + 1)
        return " ".join([executable, *words[:at]]) + separator + " ".join(words[at:])

    def wrapped(self, words: list[str]) -> str:
        """Return a command that starts dockerd through a wrapper or a shell."""
        if self.chance(0.3):
            return " ".join([self.one(WRAPPERS), self.executable, *map(self.quoted, words)])
        variable = self.one((*OPTION_VARIABLES, "A", "UNSET", "HOME", "LISTEN_FDS", "INVOCATION_ID"))
        words = [self.one((word, word, word, f"'{word}'", f'"{word}"')) for word in words]
        for _ in range(self.random.choices((0, 1, 2), (60, 30, 10))[0]):
            words.insert(self.random.randrange(len(words) + 1), self.one((
                f"$${variable}", f"$${{{variable}}}", f'"$${variable}"', f"${variable}", f"${{{variable}}}",
                f"$${{{variable}:---debug}}", f"--label=v=$${variable}", "$$1", '"$$@"', "$$(echo -D)", "\\$$A", "''",
                "2>&1", ">/dev/null", "</dev/null", "--label=*", "~", "--label={a,b}=c", "--label=a\\ b=c")))
        script = self.one(BEFORE_IN_SCRIPT) + " ".join([self.executable, *words]) + self.one(AFTER_IN_SCRIPT)
        script = script.replace("\\", "\\\\") if self.chance(0.2) else script
        script = f"'{script}'" if "'" not in script and self.chance(0.5) else '"{}"'.format(script.replace('"', '\\"'))
        return f"{self.one(SHELLS)} {script}" + self.one(("", "", "", " -D", " sh -D --label=a=b", " sh $A"))

    def program(self) -> str:
        if self.chance(0.92):
            return self.executable
        if self.chance(0.2):
            return self.one(("/usr/bin/docker daemon", "/usr/bin/docker -d", "/usr/bin/docker -D daemon",
                             "docker daemon", "/usr/bin/docker --daemon", "/usr/bin/docker daemon -d",
                             "/usr/bin/docker -H fd:// -d", "/usr/bin/docker --tls daemon",
                             "/usr/bin/docker -l warn daemon", "/usr/bin/docker-current daemon",
                             "/usr/bin/docker -dH fd://", "/usr/bin/docker --host fd:// daemon",
                             "/usr/bin/docker dockerd"))
        return self.one(("/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd", "dockerd",
                         "/usr/bin/docker daemon", "/usr/bin/docker -d", "/usr/bin//dockerd", "/usr/bin/../bin/dockerd",
                         "/usr/bin/./dockerd", "bin/dockerd", '"/usr/bin/dockerd"', "/usr/bin/dockerd/", "$DOCKERD",
                         "${DOCKERD}", "/usr/bin/env dockerd", "/usr/bin/env A=b dockerd",
                         "/bin/sh -c 'exec /usr/bin/dockerd -H fd://'", '/bin/sh -c "/usr/bin/dockerd $DOCKER_OPTS"',
                         "/opt/bin/dockerd", "%p", "/usr/bin/%p", "/usr/bin/%pd", "/usr/bin/docker\\sdockerd",
                         '"/usr/bin/docker dockerd"', "/usr/bin/docker", "./dockerd", "", "/",
                         "/usr/bin/nice -n 5 /usr/bin/dockerd", "/usr/bin/dockerd\\s", "dockerd\\x2f",
                         "/usr/lib/coreos/dockerd", "/usr/bin/env -i /usr/bin/dockerd",
                         "/bin/bash -c 'exec dockerd -H tcp://127.0.0.1:2375'", "/usr/bin/dockerd-current",
                         "~/dockerd"))

    def oddity(self) -> str:  # noqa: PLR0911
        kind = self.weighted({"variable": 45, "specifier": 12, "escape": 10, "quote": 5, "semicolon": 6, "flag": 10,
                              "mixed": 6})
        if kind == "variable":
            name = self.one((*OPTION_VARIABLES, "A", "B", "EMPTY", "UNSET", "HOME", "PATH", *SET_BY_SYSTEMD))
            return self.one((f"${name}", f"${{{name}}}", f"-H ${name}", f"--label=v=${{{name}}}", f'"${name}"',
                             f"'${{{name}}}'", f"$${name}", f"--label=v=${name}", f"${{{name}", f"${name}-x",
                             f"${{{name}:-fd://}}", f"${name}${name}", f"x${{{name}}}y", f"$${{{name}}}", "$", "$$",
                             "${}", "$1", "${1}", f"--host=${{{name}}}", f"${{{name}:+fd://}}", f"${{{name}}}${{A}}",
                             f"-H${{{name}}}", f"$({name})", f"${{ {name} }}", f"`{name}`"))
        if kind == "specifier":
            return self.one(("--label=s=", "", "--label=")) + self.one(SPECIFIERS) + self.one(("", "x", "=y"))
        if kind == "escape":
            return "--label=e=" + self.one(ESCAPES) + self.one(("", "x", "41", " "))
        if kind == "quote":
            return self.one(('"', "'", '""', "''", '"--label=a=b c"', "--label='a=b c'", '"-D"x', "\"'\"", "'\"'",
                             'a"b', "-H '", "'--label=q=\\\\'", '"--label=q=\\\\"'))
        if kind == "semicolon":
            return self.one((";", "\\;", '";"', "a;b", ";;", "; /bin/true", "\\;x", ";x", "--label=a=;", "\\073",
                             "';'", "; dockerd"))
        if kind == "flag":
            return " ".join(self.one(BAD_FLAGS))
        return self.one(SPECIFIERS) + self.one(ESCAPES) + self.one(("$A", "${A}", "x"))
