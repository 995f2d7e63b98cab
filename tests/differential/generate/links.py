"""Masks, aliases, and linked units and directories (systemd.unit(5))."""

from __future__ import annotations

from tests.differential.generate.services import SERVICES, Services
from tests.differential.generate.tree import CONTROL, ETC, LIB, LOCAL, RUN


class Links(Services):
    """Generates links."""

    def mask(self) -> None:
        kind = self.weighted({"drop-in": 60, "service": 6, "socket": 16, "hide": 18})
        if kind == "drop-in":
            targets = [path for path in self.files if ".d/" in path]
            name = self.one(targets).rpartition("/")[2] if targets and self.chance(0.9) else self.drop_in_name()
            unit = self.one(("docker.service", "docker.service", "docker.socket", "service"))
            self.nothing(f"{self.one((ETC, RUN, LIB, CONTROL, LOCAL))}/{unit}.d/{name}")
        elif kind == "hide":
            targets = [path for path in self.files if ".d/" in path]
            if targets:
                path = self.one(targets)
                directory, _, name = path.rpartition("/")
                other = f"{self.search_directory()}/{directory.rpartition('/')[2]}/{name}"
                if other != path:
                    self.put(other, self.damaged(self.service_lines()))
        else:
            self.nothing(f"{self.one((ETC, ETC, RUN, LOCAL, CONTROL))}/docker.{kind}")

    def nothing(self, path: str) -> None:
        kind = self.weighted({"null": 50, "empty": 20, "dangling": 12, "newline": 8, "directory": 5, "relative": 5})
        if kind == "null":
            self.link(path, "/dev/null")
        elif kind == "empty":
            self.put(path, "")
        elif kind == "dangling":
            self.link(path, self.one(("/nonexistent/x.conf", "gone.conf", "gone.service", "../gone")))
        elif kind == "newline":
            self.put(path, "\n")
        elif kind == "relative":
            self.link(path, "../../../../dev/null")
        else:
            self.take_away(path)
            self.directories.append(path)

    def add_links(self) -> None:  # noqa: PLR0912
        """Aliases, linked units, linked drop-in directories."""
        kind = self.weighted({"alias": 24, "renamed": 18, "linked": 14, "directory": 14, "file": 12, "self": 4,
                              "gone": 4, "bad": 4, "chain": 5, "alias socket": 4})
        where = self.one((ETC, ETC, RUN, LOCAL, LIB))
        if kind == "alias":
            self.link(f"{where}/alias-of.service",
                      self.one((f"{LIB}/docker.service", "docker.service", "/lib/systemd/system/docker.service",
                                                              "../../../usr/lib/systemd/system/docker.service")))
            self.put(f"{self.search_directory()}/alias-of.service.d/{self.drop_in_name()}",
                     self.damaged(self.service_lines()))
        elif kind == "renamed":
            real = self.one(("docker-ce.service", "moby.service", "container-engine.service"))
            content = self.files.get(f"{LIB}/docker.service")
            if content is not None:
                self.put(f"{LIB}/{real}", content)
                if self.chance(0.8):
                    self.take_away(f"{LIB}/docker.service")
                self.link(f"{where}/docker.service", self.one((f"{LIB}/{real}", real, f"/lib/systemd/system/{real}",
                                                               f"{ETC}/{real}", f"../system/{real}")))
                if self.chance(0.6):
                    unit = self.one((real, "docker.service", "docker-.service"))
                    self.put(f"{self.search_directory()}/{unit}.d/{self.drop_in_name()}",
                             self.damaged(self.service_lines()))
        elif kind == "linked":
            name = self.one(("docker.service", "docker.service", "my.service", "docker.txt"))
            text = self.one(list(SERVICES.values()))
            if self.chance(0.5):
                text = f"[Service]\nType=notify\nExecStart={self.command()}\n"
            self.put(f"/opt/docker/{name}", text)
            self.link(f"{where}/docker.service", f"/opt/docker/{name}")
            if self.chance(0.5):
                self.put(f"{where}/{name}.d/x.conf", self.service_lines())
        elif kind == "directory":
            target = self.one(("/opt/dropins", f"{ETC}/shared.d", f"{LIB}/docker.service.d"))
            self.put(f"{target}/{self.drop_in_name()}", self.damaged(self.service_lines()))
            self.link(f"{where}/{self.one(('docker.service', 'service', 'alias-of.service'))}.d",
                      self.one((target, "../../.." + target, "shared.d", "docker.service.d", "/nonexistent",
                                target.lstrip("/"))))
        elif kind == "file":
            self.put("/srv/shared.conf", self.damaged(self.service_lines()))
            self.link(f"{where}/docker.service.d/{self.drop_in_name()}",
                      self.one(("/srv/shared.conf", "../../../../srv/shared.conf", "../../../../../srv/shared.conf")))
        elif kind == "self":
            self.link(f"{where}/docker.service",
                      self.one(("docker.service", f"{where}/docker.service", f"{LIB}/docker.service")))
        elif kind == "gone":
            self.link(f"{where}/docker.service",
                      self.one((f"{LIB}/gone.service", "gone.service", "/opt/gone/docker.service",
                                                           "/nonexistent")))
        elif kind == "bad":
            self.link(f"{where}/docker.service",
                      self.one((f"{LIB}/docker.socket", "docker@.service", "docker.txt", "docker@x.service")))
        elif kind == "chain":
            self.link(f"{where}/docker.service", self.one(("b.service", f"{LIB}/b.service")))
            self.link(f"{self.one((ETC, LIB, RUN))}/b.service",
                      self.one(("c.service", f"{LIB}/c.service", "docker.service")))
            self.put(f"{self.one((LIB, ETC))}/c.service", self.one(list(SERVICES.values())))
            self.put(f"{ETC}/{self.one(('b', 'c', 'docker'))}.service.d/{self.drop_in_name()}",
                     self.damaged(self.service_lines()))
        else:
            self.link(f"{where}/alias-of.socket", self.one((f"{LIB}/docker.socket", "docker.socket")))
            self.put(f"{ETC}/alias-of.socket.d/10.conf", self.socket_lines())
