r"""What systemd makes of unit files, as tables.

tests/unit/test_systemd_reading.py holds our reading against them, tests/system/test_systemd_reading.py
the real systemd of each release. A result is that of 252, 257 and 262, or a dict of results
and the version each of them holds from. UNIT stands for the unit's name without its type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.support.unit_files import Content, Directory, Link

NOT_TEXT = "not text"
"""The state of a unit whose values are not UTF-8, which D-Bus cannot send."""

HIGH, MIDDLE, LOW = "/etc/systemd/system/", "/run/systemd/system/", "/usr/lib/systemd/system/"

Commands = list[list[str]]
Lines = list[str]
Facts = dict[str, object]
"""Some of `state` ("loaded" where it is not named), `argv` of all ExecStart=, `environment`, `listen`
as [kind, address], `dropins`, `fragment`, `names`, `type`."""


class Case(NamedTuple):
    """Files, and what systemd has of the unit in the end, by the version from which it has it."""

    name: str
    unit: str
    files: dict[str, Content]
    facts: dict[int, Facts]


def since(result: object) -> dict[int, object]:
    return result if isinstance(result, dict) else {0: result}


def at(results: dict[int, Facts], version: int) -> Facts:
    return results[max(first for first in results if first <= version)]


# ExecStart= -- config_parse_exec() in src/core/load-fragment.c. A list is the argv of each command, a
# word the LoadState.

X = "/bin/x"
COMMANDS: tuple[tuple[str, str, object], ...] = (
    ("words between blanks", "/bin/x a  b\tc", [[X, "a", "b", "c"]]),
    ("no other blanks than space and tab", "/bin/x a\x0bb a\x0cb a\u00a0b", [[X, "a\x0bb", "a\x0cb", "a\u00a0b"]]),
    ("quotes of both kinds, also amid a word", """/bin/x "a b" 'c d' e"f g"h """, [[X, "a b", "c d", "ef gh"]]),
    ("one kind of quotes in the other", """/bin/x "it's" '"'""", [[X, "it's", '"']]),
    ("nothing in quotes is an argument", """/bin/x "" '' a""", [[X, "", "", "a"]]),
    ("escapes count in both kinds of quotes", r"""/bin/x "\x41\"" '\x41\''""", [[X, 'A"', "A'"]]),
    ("all escapes", r"/bin/x \a\b\f\n\r\t\v\\\s\"\'", [[X, "\a\b\f\n\r\t\v\\ \"'"]]),
    ("bytes and characters by number", r"/bin/x \x41\101\u00e9\U0001F600 \xc3\xa9", [[X, "AAé😀", "é"]]),
    ("unknown escapes stay", r"/bin/x \q \8 \x4 \400 \x00 \000 \U00110000",
     [[X, r"\q", r"\8", r"\x4", r"\400", r"\x00", r"\000", r"\U00110000"]]),
    ("a backslash at the end stays", "/bin/x a\\ ", [[X, "a\\"]]),
    ("half a surrogate pair", r"/bin/x \ud83d", {0: "not text", 258: [[X, r"\ud83d"]]}),
    ("a noncharacter", r"/bin/x \ufffe", "not text"),
    ("a noncharacter in long", r"/bin/x \U0000fffe", [[X, r"\U0000fffe"]]),
    ("an open quote", '/bin/x "a', "bad-setting"),
    ("an open quote with the - prefix", '-/bin/x "a\nExecStart=/bin/y', [["/bin/y"]]),
    ("an open quote in the first word is only a warning", '"/bin/x\nExecStart=/bin/y', [["/bin/y"]]),
    ("no comment at the end of a line", "/bin/x a # b", [[X, "a", "#", "b"]]),

    ("; alone begins a command", "/bin/x a ; /bin/y b", [[X, "a"], ["/bin/y", "b"]]),
    ("; amid a word does not", "/bin/x a;b ;c d; e", [[X, "a;b", ";c", "d;", "e"]]),
    ("; in other spellings is an argument", r"""/bin/x \; ";" \073""", [[X, ";", ";", ";"]]),
    ("; with a backslash before a word stays", r"/bin/x \;a", [[X, r"\;a"]]),
    ("nothing before or after a ;", "; ; /bin/x ; ; /bin/y ;", [[X], ["/bin/y"]]),
    ("an error after ; drops what follows, the first command stays with the - prefix", "-/bin/x ; -bin/y",
     [[X]]),

    ("prefixes in any order", "@-:/bin/x zero a", [["zero", "a"]]),
    ("prefixes in and before quotes", '"-/bin/x" a\nExecStart=-"/bin/x" b', [[X, "a"], [X, "b"]]),
    ("each prefix once", "--/bin/x\nExecStart=/bin/y", [["/bin/y"]]),
    ("+ and ! exclude each other", "+!/bin/x", "bad-setting"),
    ("! and + exclude each other", "!+/bin/x", "bad-setting"),
    ("!! is one prefix", "!!/bin/x a", [[X, "a"]]),
    ("!! with another between", "!:!/bin/x a", [[X, "a"]]),
    ("three are too many", "!!!/bin/x a", "bad-setting"),
    ("@ without argv[0]", "@/bin/x", "bad-setting"),
    ("a prefix alone", "-\nExecStart=/bin/y", [["/bin/y"]]),
    ("a blank after a prefix", "- /bin/x\nExecStart=/bin/y", [["/bin/y"]]),
    ("| runs the rest in a shell", "|/bin/x $A", {0: "bad-setting", 258: [["sh", X, "$A"]]}),
    ("| with a blank", "| echo a > /run/b", {0: [["|", "echo", "a", ">", "/run/b"]],
                                             258: [["sh", "echo", "a", ">", "/run/b"]]}),
    ("| and @ is a login shell", "@|echo a", {0: [["a"]], 258: [["-sh", "echo", "a"]]}),
    ("| twice", "||echo", {0: [["||echo"]], 258: [["sh", "|echo"]]}),
    ("no specifiers in the word after |, as in 262", "|%n %n", {0: [["|UNIT.service", "UNIT.service"]],
                                                            258: [["sh", "%n", "UNIT.service"]]}),

    ("a name to be searched", "x a", [["x", "a"]]),
    ("argv[0] as written", "//bin///./x//y a", [["//bin///./x//y", "a"]]),
    ("a relative path", "bin/x", "bad-setting"),
    ("a relative path with ./", "./x", "bad-setting"),
    ("a slash at the end", "/bin/x/", "bad-setting"),
    ("a dot at the end", "/bin/.", {0: [["/bin/."]], 253: "bad-setting"}),
    ("control characters in the path", r"/bin/x\x01", "bad-setting"),
    ("a quote in the path", r"/bin/x\x27", "bad-setting"),
    ("a blank in the path", r"/bin/x\sy", [["/bin/x y"]]),
    ("a pattern in the path", "/bin/x*", {0: [["/bin/x*"]], 258: "bad-setting"}),
    ("a name too long", "/bin/" + "x" * 256, "bad-setting"),
    ("an empty path", '""', "bad-setting"),
    ("no variable in the path", "$A ${A}", [["$A", "${A}"]]),

    ("specifiers", "/bin/x %n %N %p %i %t %S %C %L %E %T %V %u %U %h",
     [[X, "UNIT.service", "UNIT", "UNIT", "", "/run", "/var/lib", "/var/cache", "/var/log", "/etc", "/tmp", "/var/tmp",
       "root", "0", "/root"]]),
    ("%%", "/bin/x 50%% %%n", [[X, "50%", "%n"]]),
    ("% before what is no letter or digit", "/bin/x 50% %- %ä", [[X, "50%", "%-", "%ä"]]),
    ("an unknown specifier", "/bin/x %Z", "bad-setting"),
    ("an unknown specifier with the - prefix", "-/bin/x %Z\nExecStart=/bin/y", [["/bin/y"]]),
    ("a digit is a specifier that is not known", "/bin/x %1", "bad-setting"),
    ("specifiers come after escapes", r"/bin/x \x25n", [[X, "UNIT.service"]]),
    ("%D is newer", "/bin/x %D", {0: "bad-setting", 256: [[X, "/usr/share"]]}),

    ("an empty assignment takes all back", "/bin/x\nExecStart=\nExecStart=/bin/y", [["/bin/y"]]),
    ("blanks are empty", "/bin/x\nExecStart=   \nExecStart=/bin/y", [["/bin/y"]]),
    ("nothing left", "/bin/x\nExecStart=", "bad-setting"),
)

# The file around it -- src/shared/conf-parser.c. What follows `Type=oneshot` in [Service]; then Environment=.

SYNTAX: tuple[tuple[str, str | bytes, object], ...] = (
    ("a comment amid a continuation", "Environment=A=1 \\\n# c \\\n  ; c\nB=2\n", ["A=1", "B=2"]),
    ("a comment is never continued", "# c \\\nEnvironment=A=1\n", ["A=1"]),
    ("a continuation is one blank", "Environment=A=1\\\nB=2\n", ["A=1", "B=2"]),
    ("two backslashes are none", "Environment='A=1\\\\'\nEnvironment=B=2\n", ["A=1\\", "B=2"]),
    ("a blank after the backslash", "Environment=A=1 \\ \nEnvironment=B=2\n", ["A=1", "B=2"]),
    ("an empty line ends a continuation", "Environment=A=1 \\\n\nB=2\nEnvironment=C=3\n", ["A=1", "C=3"]),
    ("a continuation swallows the next key", "Environment=A=1 \\\nEnvironment=B=2\n", ["A=1", "Environment=B=2"]),
    ("a continuation swallows a section", "Description=a \\\n[Unit]\nEnvironment=B=2\n", ["B=2"]),
    ("a continuation at the end of the file", "Environment=A=1 \\", ["A=1"]),
    ("a continued key", "Environ\\\nment=A=1\nEnvironment=B=2\n", ["B=2"]),
    ("blanks around all", "  Environment \t=\t A=1 \t\n", ["A=1"]),
    ("CR LF", "Environment=A=1\r\nEnvironment=B=2\r\n", ["A=1", "B=2"]),
    ("CR alone", "Environment=A=1\rEnvironment=B=2\r", ["A=1", "B=2"]),
    ("LF CR", "Environment=A=1\n\rEnvironment=B=2\n\r", ["A=1", "B=2"]),
    ("NUL ends a line", b"Environment=A=1\0Environment=B=2\n", ["A=1", "B=2"]),
    ("a vertical tab does not", "Environment=A=1\x0bB=2\n", ["A=1\x0bB=2"]),
    ("a byte order mark, once", "\ufeffEnvironment=A=1\n\ufeffEnvironment=B=2\n", ["A=1"]),
    ("keys have their case", "environment=A=1\nENVIRONMENT=B=2\n", []),
    ("sections have their case", "[service]\nEnvironment=A=1\n[ Service ]\nEnvironment=B=2\n", []),
    ("sections come back", "[Unit]\nEnvironment=A=1\n[Service]\nEnvironment=B=2\n", ["B=2"]),
    ("sections of others", "[X-Mine]\nEnvironment=A=1\n[Socket]\nEnvironment=B=2\n", []),
    ("lines that are none", "Environment\n=A=1\nEnvironment=B=2\n", ["B=2"]),
    ("text that is not UTF-8, in a comment", b"# \xff\nEnvironment=A=1\n", ["A=1"]),
    ("text that is not UTF-8", b"Environment=A=1\nX-a=\xff\n", "error"),
    ("text that is not UTF-8, in a section of others", b"[X-Mine]\na=\xff\n", "error"),
    ("a noncharacter", "Description=\ufffe\n", "error"),
    ("a header with a comment", "[Service] # c\n", "error"),
    ("a header without its end", "[Service\n", "error"),
    ("a header with quotes", '[X-"a"]\n', "error"),
    ("an empty header", "[]\n", {0: [], 258: "error"}),
    ("a header with a pattern", "[X-*]\n", {0: [], 258: "error"}),
    ("a line of 1 MiB", "X-a=" + "x" * ((1 << 20) - 4) + "\n", "error"),
    ("a line of a byte less", "X-a=" + "x" * ((1 << 20) - 5) + "\nEnvironment=A=1\n", ["A=1"]),
    ("a comment of 1 MiB", "#" + "x" * (1 << 20) + "\n", "error"),
    ("continued lines of 1 MiB", "X-a=" + "x" * 600_000 + "\\\n" + "y" * ((1 << 20) - 600_005) + "\nEnvironment=A=1\n",
     ["A=1"]),
    ("continued lines of a byte more", "X-a=" + "x" * 600_000 + "\\\n" + "y" * ((1 << 20) - 600_004) + "\n", "error"),
)

# Environment= -- config_parse_environ().

ENVIRONMENT: tuple[tuple[str, str, object], ...] = (
    ("quotes around all or the value", """Environment="A=x y" B='x y' C=a"b c" """, ["A=x y", "B=x y", "C=ab c"]),
    ("escapes", r"Environment=A=\x41\n B='\u00e9'", ["A=A\n", "B=é"]),
    ("a bad escape ends the line", "Environment=A=1 B=\\q C=3\nEnvironment=D=4", ["A=1", "D=4"]),
    ("an open quote ends the line", 'Environment=A=1 "B=2 C=3\nEnvironment=D=4', ["A=1", "D=4"]),
    ("names that are none", "Environment=1A=1 A-B=2 A.B=3 =4 A _A=5", ["_A=5"]),
    ("values that are no text", r"Environment=A=\xff B=\xc3\xa9", ["B=é"]),
    ("the later one counts, the place is the first one's", "Environment=A=1 B=2\nEnvironment=A=3", ["A=3", "B=2"]),
    ("nothing is expanded but specifiers", "Environment=A=1 B=$A C=%n D=50%% E=%Z", ["A=1", "B=$A", "C=UNIT.service",
                                                                                 "D=50%"]),
    ("an empty one takes all back", "Environment=A=1\nEnvironment=\nEnvironment=B=2", ["B=2"]),
)

# What refuses a whole service: the lines after a good ExecStart= in a Type=simple service, and the LoadState.

REFUSALS: tuple[tuple[str, str, object], ...] = (
    ("two commands", "ExecStart=/bin/y", "bad-setting"),
    ("two commands, one after the other", "Type=oneshot\nExecStart=/bin/y", "loaded"),
    ("always again once", "Type=oneshot\nRestart=always", "bad-setting"),
    ("on failure again", "Type=oneshot\nRestart=on-failure", "loaded"),
    ("a type that is none", "Type=x", "loaded"),
    ("a newer type", "Type=oneshot\nType=notify-reload\nExecStart=/bin/y", {0: "loaded", 253: "bad-setting"}),
    ("on the bus without a name", "Type=dbus", "bad-setting"),
    ("on the bus", "Type=dbus\nBusName=org.example.X", "loaded"),
    ("once, as long as any lives", "Type=oneshot\nExitType=cgroup", "bad-setting"),
    ("stop alone", "Type=oneshot\nExecStart=\nExecStop=/bin/x", "bad-setting"),
    ("stop alone, remaining", "Type=oneshot\nExecStart=\nExecStop=/bin/x\nRemainAfterExit=yes", "loaded"),
    ("another command that is wrong", "ExecReload=bin/x", "bad-setting"),
    ("a command newer versions know", "ExecReloadPost=bin/x", {0: "loaded", 259: "bad-setting"}),
    ("a user that cannot be", "User=a:b", "bad-setting"),
    ("a user by an unknown specifier", "User=%Z", "bad-setting"),
    ("groups of which one cannot be", "SupplementaryGroups=a b/c", "bad-setting"),
    ("a number that is no user's", "User=65535", "bad-setting"),
    ("a relative working directory", "WorkingDirectory=x", "bad-setting"),
    ("a relative working directory that may be missing", "WorkingDirectory=-x", "loaded"),
    ("a working directory through ..", "WorkingDirectory=/a/../b", "bad-setting"),
    ("a relative root", "RootDirectory=x", "bad-setting"),
    ("neither dynamic nor not", "DynamicUser=maybe", "bad-setting"),
    ("neither remaining nor not", "RemainAfterExit=maybe", "loaded"),
    ("a PID file through ..", "PIDFile=/a/../b", "error"),
    ("a PID file below /proc", "PIDFile=/proc/x", {0: "loaded", 256: "error"}),
    ("an image policy that is none", "RootImagePolicy=x", {0: "loaded", 254: "error"}),
    ("an AppArmor profile by an unknown specifier", "AppArmorProfile=%Z", "bad-setting"),
    ("a login that leaves processes", "PAMName=x\nKillMode=process", "bad-setting"),
    ("a limit that is none", "LimitNOFILE=x", "loaded"),
)

# ListenStream= and its like -- config_parse_socket_listen(), socket_address_parse(). The lines of [Socket], and
# what is listened at, or the LoadState.

SOCKETS: tuple[tuple[str, str, object], ...] = (
    ("a port", "ListenStream=2375", [["Stream", "[::]:2375"]]),
    ("a port in other numbers", "ListenStream=0x947\nListenStream=04507\nListenStream=0b100101000111\nListenStream=+1",
     [["Stream", "[::]:2375"], ["Stream", "[::]:2375"], ["Stream", "[::]:2375"], ["Stream", "[::]:1"]]),
    ("ports that are none", "ListenStream=0\nListenStream=65536\nListenStream=-1\nListenStream=080\nListenStream=80x",
     "bad-setting"),
    ("addresses", "ListenStream=127.0.0.1:80\nListenStream=[::1]:0x50",
     [["Stream", "127.0.0.1:80"], ["Stream", "[::1]:80"]]),
    ("addresses as systemd writes them", "ListenStream=[2001:DB8:0:0:0:0:0:A]:1\nListenStream=[::ffff:127.0.0.1]:1\n"
     "ListenStream=[::1.2.3.4]:1", [["Stream", "[2001:db8::a]:1"], ["Stream", "[::ffff:127.0.0.1]:1"],
                                   ["Stream", "[::1.2.3.4]:1"]]),
    ("addresses that are none", "ListenStream=localhost:80\nListenStream=*:80\nListenStream=127.0.0.01:80\n"
     "ListenStream=::1:80\nListenStream=[::1]\nListenStream=1.2.3.4:\nListenStream=:80\nListenStream=tcp://1.2.3.4:80",
     "bad-setting"),
    ("an interface", "ListenStream=[fe80::1]:80%%lo", [["Stream", "[fe80::1]:80%lo"]]),
    ("paths", "ListenStream=/run/a b\nListenStream=//run//c/", [["Stream", "/run/a b"], ["Stream", "//run//c/"]]),
    ("below /var/run", "ListenStream=/var/run/a\nListenStream=//var/./run//b", [["Stream", "/run/a"],
                                                                             ["Stream", "/run/b"]]),
    ("paths that are none", 'ListenStream="/run/a"\nListenStream=run/a\nListenStream=unix:///run/a', "bad-setting"),
    ("paths too long", f"ListenStream=/{'x' * 107}\nListenStream=/{'x' * 106}", [["Stream", f"/{'x' * 106}"]]),
    ("a path through ..", "ListenStream=/run/../x", "error"),
    ("an abstract one through ..", "ListenStream=@/../x", [["Stream", "@/../x"]]),
    ("what is not plain is shown escaped", 'ListenStream=/run/ä"\\x', [["Stream", '/run/\\303\\244\\"\\\\x']]),
    ("specifiers", "ListenStream=%t/%N.sock\nListenStream=%Z/x", [["Stream", "/run/UNIT.sock"]]),
    ("virtual sockets", "ListenStream=vsock:2:80\nListenStream=vsock::0x50\nListenStream=vsock:2:x",
     [["Stream", "vsock:2:80"], ["Stream", "vsock::80"]]),
    ("virtual sockets by type", "ListenStream=vsock-stream:2:80\nListenStream=1",
     {0: [["Stream", "[::]:1"]], 253: [["Stream", "vsock:2:80"], ["Stream", "[::]:1"]]}),
    ("an empty one takes back all kinds", "ListenStream=1\nListenDatagram=2\nListenFIFO=\nListenStream=3",
     [["Stream", "[::]:3"]]),
    ("all taken back", "ListenStream=1\nListenStream=", "bad-setting"),
    ("other kinds", "ListenDatagram=1\nListenSequentialPacket=/run/a\nListenSequentialPacket=1\nListenFIFO=/run//f/",
     [["Datagram", "[::]:1"], ["SequentialPacket", "/run/a"], ["FIFO", "/run/f"]]),
    ("accepting for a service of its own", "Accept=yes\nService=UNIT.service\nListenStream=1", "bad-setting"),
    ("accepting what is no connection", "Accept=yes\nListenDatagram=1", "bad-setting"),
    ("no connections", "MaxConnections=0\nListenStream=1", {0: [["Stream", "[::]:1"]], 253: "bad-setting"}),
    ("links to none", "Symlinks=/run/l\nListenStream=1", "bad-setting"),
    ("a group that cannot be", "SocketGroup=a:b\nListenStream=1", "bad-setting"),
    ("a mode that is none", "SocketMode=rw\nListenStream=1", [["Stream", "[::]:1"]]),
    ("a section of another unit", "[Service]\nListenStream=1\n[Socket]\nListenStream=2", [["Stream", "[::]:2"]]),
)

# Files -- src/basic/unit-file.c, src/shared/dropin.c, src/basic/conf-files.c.

PLAIN = "[Service]\nExecStart=/bin/x\n"
FOUND = [[X]]


def sets(*names: str) -> str:
    return "[Service]\n" + "".join(f"Environment={name}=1\n" for name in names)


FILES: tuple[tuple[str, dict[str, Content], object], ...] = (
    ("drop-ins in the order of their names alone",
     {LOW + "UNIT.service": PLAIN, LOW + "UNIT.service.d/90.conf": sets("C"),
      HIGH + "UNIT.service.d/10.conf": sets("A"), MIDDLE + "UNIT.service.d/9.conf": sets("D"),
      HIGH + "UNIT.service.d/B.conf": sets("E")},
     {"environment": ["A=1", "D=1", "C=1", "E=1"],
      "dropins": [HIGH + "UNIT.service.d/10.conf", MIDDLE + "UNIT.service.d/9.conf", LOW + "UNIT.service.d/90.conf",
                  HIGH + "UNIT.service.d/B.conf"]}),
    ("of one name the higher directory's",
     {LOW + "UNIT.service": PLAIN, LOW + "UNIT.service.d/a.conf": sets("LOW"), HIGH + "UNIT.service.d/a.conf":
      sets("HIGH")}, {"environment": ["HIGH=1"]}),
    ("a link to /dev/null masks", {LOW + "UNIT.service": PLAIN, LOW + "UNIT.service.d/a.conf": sets("LOW"),
                                   HIGH + "UNIT.service.d/a.conf": Link("/dev/null")},
     {"environment": [], "dropins": [HIGH + "UNIT.service.d/a.conf"]}),
    ("an empty file masks", {LOW + "UNIT.service": PLAIN, LOW + "UNIT.service.d/a.conf": sets("LOW"),
                             HIGH + "UNIT.service.d/a.conf": ""}, {"environment": []}),
    ("a link to nothing masks", {LOW + "UNIT.service": PLAIN, LOW + "UNIT.service.d/a.conf": sets("LOW"),
                                 HIGH + "UNIT.service.d/a.conf": Link("/nowhere")}, {"environment": []}),
    ("a link to itself masks", {LOW + "UNIT.service": PLAIN, LOW + "UNIT.service.d/a.conf": sets("LOW"),
                                HIGH + "UNIT.service.d/a.conf": Link("a.conf")},
     {0: {"environment": []}, 258: {"environment": ["LOW=1"]}}),
    ("a link through a file masks", {LOW + "UNIT.service": PLAIN, LOW + "UNIT.service.d/a.conf": sets("LOW"),
                                     HIGH + "UNIT.service.d/a.conf": Link("/etc/passwd/x")},
     {0: {"environment": []}, 258: {"environment": ["LOW=1"]}}),
    ("a directory masks", {LOW + "UNIT.service": PLAIN, LOW + "UNIT.service.d/a.conf": sets("LOW"),
                           HIGH + "UNIT.service.d/a.conf": Directory()},
     {"environment": [], "dropins": [HIGH + "UNIT.service.d/a.conf"]}),
    ("names that do not count", {LOW + "UNIT.service": PLAIN, **{
        HIGH + "UNIT.service.d/" + name: sets("X") for name in (
            ".a.conf", "b.conf.bak", "c.conf~", "d.CONF", "e", "f.conf.rpmsave")}}, {"environment": [], "dropins": []}),
    ("names that do", {LOW + "UNIT.service": PLAIN, **{
        HIGH + "UNIT.service.d/" + name: sets(f"A{number}") for number, name in enumerate(
            ("-.conf", "10.conf", "9.conf", "A.conf", "_.conf", "a b.conf", "a.rpmnew.conf", "~.conf", "ä.conf"))}},
     {"environment": [f"A{number}=1" for number in range(9)]}),
    ("a link for the directory", {LOW + "UNIT.service": PLAIN, "/srv/UNIT/a.conf": sets("A"),
                                  HIGH + "UNIT.service.d": Link("/srv/UNIT")},
     {"environment": ["A=1"], "dropins": ["/srv/UNIT/a.conf"]}),
    ("a relative link for the directory", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.x/a.conf": sets("A"),
                                           HIGH + "UNIT.service.d": Link("UNIT.x")}, {"environment": []}),
    ("a relative link that leads there from / as well",
     {LOW + "UNIT.service": PLAIN, "/srv/UNIT/a.conf": sets("A"), HIGH + "UNIT.service.d": Link("../../../srv/UNIT")},
     {"environment": ["A=1"]}),
    ("an error drops the rest of a drop-in", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service.d/a.conf":
     "[Service]\nEnvironment=A=1\n[Service\nEnvironment=B=1\n", HIGH + "UNIT.service.d/b.conf": sets("C")},
     {"environment": ["A=1", "C=1"], "argv": FOUND}),
    ("a bad command drops the rest of a drop-in, and the old one stays",
     {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service.d/a.conf":
      "[Service]\nExecStart=bin/y\nExecStart=\nEnvironment=B=1\n"}, {"environment": [], "argv": FOUND}),
    ("a bad command after the reset", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service.d/a.conf":
     "[Service]\nExecStart=\nExecStart=bin/y\n"}, "bad-setting"),
    ("a drop-in of the prefix", {LOW + "UNIT-a.service": PLAIN, HIGH + "UNIT-.service.d/a.conf": sets("A")},
     {"unit": "UNIT-a.service", "environment": ["A=1"]}),
    ("a prefix's in a higher directory before the unit's own",
     {LOW + "UNIT-a.service": PLAIN, HIGH + "UNIT-.service.d/a.conf": sets("PREFIX"),
      LOW + "UNIT-a.service.d/a.conf": sets("OWN")}, {"unit": "UNIT-a.service", "environment": ["PREFIX=1"]}),

    ("the higher directory's", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": PLAIN.replace("/x", "/y")},
     {"argv": [["/bin/y"]], "fragment": HIGH + "UNIT.service"}),
    ("masked by a link", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": Link("/dev/null"),
                          HIGH + "UNIT.service.d/a.conf": sets("A")}, "masked"),
    ("masked by a relative link", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": Link("../../../dev/null")},
     "masked"),
    ("masked by a link to a link", {LOW + "UNIT.service": PLAIN, "/srv/UNIT": Link("/dev/null"), HIGH + "UNIT.service":
                                    Link("/srv/UNIT")}, "masked"),
    ("masked by an empty file", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": ""}, "masked"),
    ("an empty line masks nothing", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": "\n"}, "bad-setting"),
    ("a link to nothing", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": Link("/nowhere")}, "not-found"),
    ("a link to a directory", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": Link("/etc")}, "error"),
    ("a link through a file", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": Link("/etc/passwd/x")},
     {"argv": FOUND, "fragment": LOW + "UNIT.service"}),
    ("a directory", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": Directory()},
     {"argv": FOUND, "fragment": LOW + "UNIT.service"}),
    ("drop-ins alone", {HIGH + "UNIT.service.d/a.conf": PLAIN}, "not-found"),
    ("a linked unit goes by the link's name",
     {"/srv/UNIT/other.service": PLAIN, HIGH + "UNIT.service": Link("/srv/UNIT/other.service"),
      HIGH + "other.service.d/UNIT.conf": sets("A")},
     {"argv": FOUND, "environment": [], "fragment": HIGH + "UNIT.service", "names": ["UNIT.service"]}),
    ("an alias brings its drop-ins", {LOW + "UNIT.service": PLAIN, HIGH + "UNITb.service": Link("UNIT.service"),
                                      HIGH + "UNITb.service.d/a.conf": sets("A")},
     {"environment": ["A=1"], "names": ["UNIT.service", "UNITb.service"]}),
    ("an alias by another directory's name, where nothing is",
     {LOW + "UNIT.service": PLAIN, HIGH + "UNITb.service": Link("/run/systemd/system/UNIT.service")},
     {"names": ["UNIT.service", "UNITb.service"]}),
    ("the unit is an alias", {LOW + "UNITb.service": PLAIN, HIGH + "UNIT.service": Link(LOW + "UNITb.service"),
                              HIGH + "UNITb.service.d/a.conf": sets("A")},
     {"argv": FOUND, "environment": ["A=1"], "fragment": LOW + "UNITb.service"}),
    ("an alias goes by name, not to the file",
     {LOW + "UNITb.service": PLAIN, MIDDLE + "UNITb.service": PLAIN.replace("/x", "/y"),
      HIGH + "UNIT.service": Link(LOW + "UNITb.service")},
     {"argv": [["/bin/y"]], "fragment": MIDDLE + "UNITb.service"}),
    ("an alias of nothing", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": Link(LOW + "UNITb.service")},
     "not-found"),
    ("an alias of itself", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": Link(LOW + "UNIT.service")},
     {"argv": FOUND, "fragment": LOW + "UNIT.service"}),
    ("an alias of another type", {LOW + "UNIT.service": PLAIN, HIGH + "UNIT.service": Link(LOW + "UNIT.socket")},
     {"argv": FOUND, "fragment": LOW + "UNIT.service"}),
    ("seven aliases", {LOW + "UNIT7.service": PLAIN, HIGH + "UNIT.service": Link("UNIT1.service"), **{
        HIGH + f"UNIT{number}.service": Link(f"UNIT{number + 1}.service") for number in range(1, 7)}}, {"argv": FOUND}),
    ("eight aliases", {LOW + "UNIT8.service": PLAIN, HIGH + "UNIT.service": Link("UNIT1.service"), **{
        HIGH + f"UNIT{number}.service": Link(f"UNIT{number + 1}.service") for number in range(1, 8)}}, "not-found"),
)


def cases() -> Iterator[Case]:
    """All tables in one form."""
    simple: dict[int, Facts] = {0: {"state": "loaded"}}
    for what, line, result in COMMANDS:
        yield _case(f"command: {what}", f"[Service]\nType=oneshot\nExecStart={line}\n", result, "argv")
    for what, text, result in SYNTAX:
        head: str | bytes = "[Service]\nType=oneshot\nExecStart=/bin/x\n"
        if isinstance(text, bytes):
            head = str(head).encode()
        yield _case(f"syntax: {what}", head + text, result, "environment")  # type: ignore[operator]
    for what, lines, result in ENVIRONMENT:
        yield _case(f"environment: {what}", f"[Service]\nExecStart=/bin/x\n{lines}\n", result, "environment")
    for what, lines, result in REFUSALS:
        yield _case(f"refusal: {what}", f"[Service]\nType=simple\nExecStart=/bin/x\n{lines}\n", result, "")
    for what, lines, result in SOCKETS:
        case = _case(f"socket: {what}", f"[Socket]\n{lines}\n", result, "listen")
        yield case._replace(unit="UNIT.socket", files={
            LOW + "UNIT.socket": case.files[LOW + "UNIT.service"], LOW + "UNIT.service": PLAIN})
    for what, files, result in FILES:
        facts = {}
        by_version = result if isinstance(result, dict) and all(isinstance(key, int) for key in result) else {0: result}
        for version, one in by_version.items():
            facts[version] = dict(one) if isinstance(one, dict) else {"state": one}
        unit = next((str(fact.pop("unit")) for fact in facts.values() if "unit" in fact), "UNIT.service")
        yield Case(f"files: {what}", unit, files, {**simple, **facts})


def _case(name: str, text: str | bytes, result: object, fact: str) -> Case:
    facts: dict[int, Facts] = {}
    for version, one in since(result).items():
        facts[version] = {"state": one} if isinstance(one, str) else {fact: one}
    return Case(name, "UNIT.service", {LOW + "UNIT.service": text}, facts)
