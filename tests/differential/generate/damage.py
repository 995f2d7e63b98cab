"""Damage to a file's text: line ends, byte order marks, NUL, invalid UTF-8, missing or wrong section headers."""

from __future__ import annotations

from tests.differential.generate.daemon_json import DaemonJson


class Damage(DaemonJson):
    """Damages some of the texts."""

    def damaged(self, text: str) -> bytes:  # noqa: PLR0911, PLR0912
        """Return the bytes of a file: usually the text unchanged, sometimes damaged."""
        data = text.encode("utf-8", "surrogateescape")
        if self.chance(0.88):
            return data
        kind = self.weighted({"crlf": 12, "cr": 2, "lfcr": 1, "bom": 6, "bom2": 2, "nul": 3, "latin comment": 4,
                              "latin": 4, "latin last": 3, "no newline": 6, "indented": 5, "blank at end": 8,
                              "backslash": 4, "header": 4, "no header": 3, "tab": 3, "doubled": 3, "cut": 4,
                              "long": 0.4, "nonchar": 1, "comment": 3, "nul end": 1, "overlong": 1,
                              "long comment": 0.3})
        lines = data.split(b"\n")
        at = self.random.randrange(len(lines))
        if kind == "crlf":
            return data.replace(b"\n", b"\r\n")
        if kind == "cr":
            return data.replace(b"\n", b"\r")
        if kind == "lfcr":
            return data.replace(b"\n", b"\n\r")
        if kind == "bom":
            return b"\xef\xbb\xbf" + data
        if kind == "bom2":
            return self.one((b"# \n\xef\xbb\xbf" + data, b"\xef\xbb\xbf\xef\xbb\xbf" + data,
                             b"\xef\xbb\xbf# c\n" + data))
        if kind == "nul":
            place = self.random.randrange(len(data) + 1)
            return data[:place] + b"\0" + data[place:]
        if kind == "nul end":
            return data + b"\0\0"
        if kind == "latin comment":
            lines.insert(at, b"# Gr\xfc\xdfe")
        elif kind == "latin":
            lines[at] += b" \xfc"
        elif kind == "latin last":
            lines.append(b"Description=Gr\xfc\xdfe")
        elif kind == "nonchar":
            lines[at] += "\ufdd0".encode() if self.chance(0.5) else "\uffff".encode()
        elif kind == "overlong":
            lines[at] += b" \xc0\x80"
        elif kind == "no newline":
            return data.rstrip(b"\n")
        elif kind == "indented":
            return b"\n".join(self.one((b"  ", b"\t")) + line for line in lines)
        elif kind == "blank at end":
            lines[at] += self.one((b" ", b"\t", b"  "))
        elif kind == "backslash":
            lines[at] += b"\\"
        elif kind == "header":
            lines.insert(at, self.one((b"[Service", b"[Service] # x", b"[Socket]", b"[Unit]", b"[ Service ]",
                                       b"[Service]]", b"[Foo]", b"Service]", b"[Servi\\ce]", b"[Install]", b"[X-Y]",
                                       b"[[Service]]", b"[Service ]")))
        elif kind == "no header":
            return b"\n".join(line for line in lines if not line.startswith(b"["))
        elif kind == "tab":
            return data.replace(b" ", b"\t")
        elif kind == "doubled":
            return data + data
        elif kind == "cut":
            return data[:self.random.randrange(len(data) + 1)]
        elif kind == "long":
            lines.insert(at, b"Environment=A=" + b"x" * ((1 << 20) + self.random.randrange(-20, 20)))
        elif kind == "long comment":
            lines.insert(at, b"#" + b"x" * ((1 << 20) + self.random.randrange(-20, 20)))
        elif kind == "comment":
            lines.insert(at, self.one((b"# a \\", b"; b", b"#", b"  # c", b"# d \\\\", b"// e", b"-- f")))
        return b"\n".join(lines)
