"""`lint DIR`: what is compressed within a file, and ends in an error."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import Call
from tests.support.cpu_time import check_cpu_time

pytest_plugins = ["tests.support.fixtures"]

COMMAND = "/usr/bin/dockerd -H tcp://10.0.0.5:2375"


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("damage", [slice(0, None), slice(0, -7)], ids=["whole", "cut"])
@pytest.mark.parametrize("changed", [0, 1])
def test_a_wrong_checksum_hides_nothing(
        compress: Callable[[bytes], bytes], damage: slice, changed: int, tmp_path: Path, call: Call) -> None:
    """gzip(1), bzip2(1) and xz(1) write what they have decompressed before they find that."""
    data = bytearray(compress(f"{COMMAND}\n".encode()))
    data[-6] ^= changed
    (tmp_path / "a.sh").write_text(f"echo {base64.b64encode(data[damage]).decode()} | base64 -d\n")
    found = call("lint", tmp_path)
    assert "a.sh:1: names a TCP address for dockerd" in found.err, found.out + found.err


def test_many_packed_texts_with_an_error_end_soon(tmp_path: Path, call: Call) -> None:
    """Each takes the time of 880 kB. `[10]` is a part of the checksum of the block."""
    data = bytearray(bz2.compress(b"ab" * 440_000))
    data[10] ^= 1
    (tmp_path / "docker.sh").write_text(f"{base64.b64encode(data).decode()} ;\n" * 200)
    def work() -> None:
        assert "has more encoded text than is read" in call("lint", tmp_path).err

    check_cpu_time(work, 1)
