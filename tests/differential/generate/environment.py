"""Environment= and EnvironmentFile= (systemd.exec(5)), and the files of variables."""

from __future__ import annotations

from tests.differential.generate.commands import ESCAPES, OPTION_VARIABLES, SPECIFIERS, Commands

LIKELY_ENVIRONMENT_FILES = ("/etc/default/docker", "/etc/sysconfig/docker", "/run/flannel/flannel_docker_opts.env",
                            "/etc/docker/docker.env", "/etc/sysconfig/docker-network")
VALUES = ("a", "1", "x y", "--debug", "fd://", "tcp://127.0.0.1:2375", "-H fd://", "-H tcp://127.0.0.1:2375 -H fd://",
          "--tlsverify", "", "'-H fd://'", "-D --log-level=warn", "--label=a=b", "\"--label=a=b c\"",
          "-H unix:///run/docker.sock", "--label='x y'=z", "a\\b", "a\\ b", "-H=tcp://0.0.0.0:2375",
          "--host tcp://0.0.0.0:2376 --tls=false", "$HOME", "${A}", "é", "\t-D\t", "--label \"a b=c\" -D", "#x",
          "-H tcp://0.0.0.0:2376 --tlsverify --tlscacert=/etc/docker/ca.pem "
          "--tlscert=/etc/docker/cert.pem --tlskey=/etc/docker/key.pem",
          "--label=\"a=b", "--label=a=b\\")


class Environments(Commands):
    """Generates variables."""

    def assignment(self) -> str:
        """Return one word of Environment=."""
        name = self.one((*OPTION_VARIABLES, *OPTION_VARIABLES, "A", "B", "HTTP_PROXY", "DOCKER_TLS_VERIFY",
                         "DOCKER_HOST", "EMPTY", "DOCKER_CERT_PATH", "HOME", "PATH", "1A", "A-B", "a.b", "DOCKERD",
                         "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "TMPDIR", "LANG", "Ä", ""))
        value = self.value_for(name)
        whole = f"{name}={value}"
        return self.weighted({
            f'"{whole}"': 50, f"'{whole}'": 12, whole: 25, f'{name}="{value}"': 10, name: 1, f"export {whole}": 0.7,
            f'"{whole}': 0.7, f"{name} = {value}": 0.8, f"{whole}{self.one(ESCAPES)}": 2,
            f"{whole}{self.one(SPECIFIERS)}": 3,
        })

    def value_for(self, name: str) -> str:  # noqa: PLR0911
        if name in ("DOCKER_CERT_PATH", "DOCKER_CONFIG"):
            return self.one(("/etc/docker", "/root/.docker", "/nonexistent"))
        if name == "HOME":
            return self.one(("/root", "/home/x", ""))
        if name == "DOCKERD":
            return "/usr/bin/dockerd"
        if name == "DOCKER_TLS_VERIFY":
            return self.one(("1", "0", "", "true"))
        if name in ("PATH", "TMPDIR", "XDG_RUNTIME_DIR"):
            return {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "TMPDIR": "/tmp", "XDG_RUNTIME_DIR": "/run/user/0"}[name]
        if self.chance(0.6):
            return self.one(VALUES)
        return " ".join(self.arguments())

    def environment_file(self) -> bytes:
        """Return the text of an environment file, with shell syntax that systemd reads differently."""
        lines: list[str] = []
        for _ in range(self.random.choices((1, 2, 3, 5), (40, 30, 20, 10))[0]):
            name = self.one((*OPTION_VARIABLES, "DOCKER_OPTS", "DOCKER_OPTS", "A", "B", "EMPTY", "HOME",
                             "DOCKER_CERT_PATH"))
            value = self.value_for(name)
            lines.append(self.weighted({
                f'{name}="{value}"': 50, f"{name}='{value}'": 14, f"{name}={value}": 18, f"{name} = {value}": 2,
                f'export {name}="{value}"': 3, f'{name} ="{value}"': 1, f"# {name}={value}": 5,
                f"#{name}={value} \\": 1.5, f'{name}="{value}': 1.5, f'{name}="{value} \\\n  -D"': 2,
                f"{name}={value} \\\n-D": 2, f"{name}={value}  ": 1.5, f'  {name}="{value}"': 1.5,
                f'{name}="${{{name}}} {value}"': 2, f'{name}+=" {value}"': 1, f'{name}="{value}" # note': 3,
                f"{name}={value} # note": 2, f'{name}="{value}"; B=2': 1, f"{name}=\"{value}\"'tail'": 1, f"{name}": 1,
                "": 3, f'{name}="{value}"\r': 1.5, f"{name}={value}\\": 1, f"{name}=a\\tb\\$c\\\"d": 1,
                f'{name}="a\\tb\\$c\\"d\\`"': 1, f"{name}='a\\tb'\\''c'": 1, f"; {name}={value}": 1,
                f'{name}=a"b c"d': 1, f"={value}": 0.5, f"{name}=\n{value}": 0.5, f"{name}=$'x'": 0.3,
                f"{name}=\t\"{value}\"": 0.5, f"{name}=x \"y": 0.3, f"{name}=x 'y' ": 0.3,
            }))
        text = "\n".join(lines) + self.one(("\n", "\n", "\n", ""))
        data = text.encode()
        if self.chance(0.03):
            at = self.random.randrange(len(data) + 1)
            data = data[:at] + self.one((b"\xff", b"\0", b"\xef\xbb\xbf", b"\xc3", b"\r")) + data[at:]
        return b"\xef\xbb\xbf" + data if self.chance(0.01) else data

    def environment_file_line(self) -> str:
        path = self.one(LIKELY_ENVIRONMENT_FILES)
        if self.chance(0.8):
            self.put(path, self.environment_file())
        written = self.weighted({f"-{path}": 55, path: 25, f"-{path.rpartition('/')[0]}/*.env": 3,
                                 f"{path.rpartition('/')[0]}/do*": 2, f"{path} # opts": 1, f'"{path}"': 1,
                                 f"-{path} {path}": 1, "-/etc/docker/missing.env": 2, "/etc/docker/missing.env": 2,
                                 path.lstrip("/"): 1, "": 2, f"-{path}\\": 0.5, f"- {path}": 0.7, f"--{path}": 0.5,
                                 "-/etc/%p/docker.env": 1, "/etc/docker": 0.7, path.replace("/docker", "/[d]ocker"): 1,
                                 path.replace("/docker", "//docker"): 1, path.replace("/etc/", "/etc/../etc/"): 0.7,
                                 "-/etc/%z": 0.5, "/etc/docker/*.env": 1, path.replace("docker", "do?ker"): 0.5,
                                 "-/nonexistent/*.env": 0.5, path + "/": 0.3})
        return f"EnvironmentFile={written}\n"

    def many_environment_files(self) -> str:
        """Return EnvironmentFile= lines with patterns, and add a directory with files that some of them match."""
        directory = "/etc/docker/env.d"
        for name in self.random.sample(("10-a.env", "9-b.env", "20.env", "B.env", "a.env", ".hidden.env", "x.envs",
                                        "é.env", "[a].env", "a b.env", "z.env~", "~.env"), 4):
            self.put(f"{directory}/{name}", self.environment_file())
        patterns = ("*.env", "*", "[0-9]*.env", "[!0-9]*", "[^.]*.env", "?.env", "??-a.env", ".*.env", "[a-z].env",
                    "[].a]*", "*.env*", "\\[a\\].env", "[[]a].env", "*/x", "{a,B}.env", "[z-a].env", "[a", "é*",
                    "*b.env", "a b.env", "[[:digit:]]*", "[[:alpha:]].env", "**", "*.e[n]v", "../env.d/*.env", "20.env")
        lines = (self.one((f"-{directory}/", f"-{directory}/", f"{directory}/", "-/etc/*/env.d/", "-/etc/d?cker/*/"))
                 + self.one(patterns) for _ in range(self.random.randrange(1, 4)))
        return "".join(f"EnvironmentFile={line}\n" for line in lines)

    def environment_file_story(self) -> None:
        path = self.one(LIKELY_ENVIRONMENT_FILES)
        self.put(path, self.environment_file())
