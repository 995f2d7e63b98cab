"""Socket units and their drop-ins (systemd.socket(5))."""

from __future__ import annotations

from tests.differential.generate.damage import Damage
from tests.differential.generate.tree import ETC, LIB, RUN

SOCKETS = {
    "stock": "[Unit]\nDescription=Docker Socket for the API\n\n[Socket]\nListenStream=/run/docker.sock\n"
             "SocketMode=0660\nSocketUser=root\nSocketGroup=docker\n\n[Install]\nWantedBy=sockets.target\n",
    "old": "[Unit]\nDescription=Docker Socket for the API\nPartOf=docker.service\n\n[Socket]\n"
           "ListenStream=/var/run/docker.sock\nSocketMode=0660\n",
    "tcp": "[Socket]\nListenStream=/run/docker.sock\nListenStream=2375\n",
}
LISTEN = ("/run/docker.sock", "/var/run/docker.sock", "2375", "0.0.0.0:2375", "127.0.0.1:2375", "[::]:2375",
          "[::1]:2376", "@docker", "/run/docker2.sock", "192.168.1.10:2376", "2376")
ODD_LISTEN = ("tcp://0.0.0.0:2375", "unix:///run/docker.sock", "*:2375", "localhost:2375", '"/run/docker.sock"',
              "/run/docker.sock # api", "run/docker.sock", "0", "02375", "65536", "0.0.0.0", "::1", "[::1]", ":2375",
              "0.0.0.0:", "vsock:2:2375", "vsock::2375", "vsock:-1:2375", "/run//docker.sock", "/run/docker dir/d.sock",
              "%t/docker.sock", "/run/%n.sock", "/run/%p-%i.sock", "%z", "0.0.0.0:+2375", " 2375 ", "[::]:2375%lo",
              "[::]:2375%%lo", "/run/docker.sock/", "/run/./docker.sock", "/run/../run/docker.sock", "/", "@", "@a b",
              "/run/" + "x" * 120, "127.1:2375", "0x94f", "2375 2376", "2375,2376", "0.0.0.0:2375/tcp",
              "[::ffff:127.0.0.1]:2377", "[::1%lo]:2375", "[fe80::1]:2375", "::ffff:1.2.3.4", "0.0.0.0:65535",
              "[0:0:0:0:0:0:0:1]:2378", "/run/d\\x20e.sock", "vsock-stream:2:99", "vsock:host:7", "vsock:any:8",
              "vsock:local:9", "vsock:4294967295:99", "vsock:2:", "+2375", "@%n", "%%t")


class Sockets(Damage):
    """Generates socket units."""

    def socket_drop_in(self) -> None:
        self.put(f"{self.drop_in_directory('docker.socket')}/{self.drop_in_name()}", self.damaged(self.socket_lines()))

    def socket_lines(self) -> str:
        lines = ["[Socket]"]
        if self.chance(0.6):
            lines.append("ListenStream=")
        for _ in range(self.random.choices((0, 1, 2, 3, 9), (8, 62, 24, 6, 2))[0]):
            value = self.one(LISTEN if self.chance(0.72) else ODD_LISTEN)
            lines.append(f"ListenStream={value}")
        if self.chance(0.15):
            lines.append(self.one(("BindIPv6Only=both", "BindIPv6Only=ipv6-only", "BindIPv6Only=default",
                                   "SocketMode=0666", "Accept=yes", "Accept=no", "Accept=maybe",
                                   "Service=docker.service", "Service=other.service", "Service=docker",
                                   "Service=alias-of.service", "FileDescriptorName=api",
                                   "ListenDatagram=/run/dgram.sock", "ListenDatagram=2377",
                                   "ListenFIFO=/run/docker.fifo", "ListenSequentialPacket=/run/seq.sock",
                                   "ListenStream", "MaxConnections=5", "ListenDatagram=", "Accept=", "Service=",
                                   "Service=docker.service\nAccept=yes", "RemoveOnStop=yes", "SocketMode=999",
                                   "SocketGroup=docker", "FreeBind=yes", "FileDescriptorName=a:b", "Service=%p.service",
                                   "Symlinks=/run/link.sock", "PassFileDescriptorsToExec=yes")))
        return "\n".join(lines) + "\n"

    def socket_fragment(self) -> None:
        text = self.one(list(SOCKETS.values())) if self.chance(0.3) else self.socket_lines()
        self.put(f"{self.one((ETC, ETC, LIB, RUN))}/docker.socket", self.damaged(text))

    def second_socket(self) -> None:
        for _ in range(self.random.choices((1, 2, 4), (80, 15, 5))[0]):
            self.another_socket()

    def another_socket(self) -> None:
        name = self.one(("docker-tcp.socket", "docker-tcp.socket", "docker-tls-tcp.socket", "api.socket", "a.socket",
                         "docker-b.socket"))
        head = self.one(("[Unit]\nDescription=Docker Socket for the API\n", ""))
        lines = self.socket_lines().removeprefix("[Socket]\n").replace("ListenStream=/run/docker.sock",
            "ListenStream=2375")
        service = self.one(("Service=docker.service\n", "Service=docker.service\n", "Service=docker.service\n",
                            "Service=alias-of.service\n", "", "Service=docker\n", "Service=docker-ce.service\n"))
        self.put(f"{self.one((ETC, ETC, LIB, RUN))}/{name}", self.damaged(f"{head}[Socket]\n{lines}{service}"))
        if self.chance(0.3):
            self.put(f"{ETC}/docker.service.d/sockets.conf",
                     f"[Service]\nSockets={self.one((name, name, 'docker.socket ' + name))}\n")
        if self.chance(0.3):
            self.link(f"{ETC}/sockets.target.wants/{name}", f"{ETC}/{name}")
        if self.chance(0.12):
            where = self.one((ETC, LIB, RUN))
            self.link(f"{where}/docker.service.{self.one(('requires', 'requires', 'wants'))}/{name}",
                      self.one((f"{ETC}/{name}", f"../{name}", "/nonexistent")))
