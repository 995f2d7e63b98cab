"""Judge layouts: the answers of the real systemd and the real dockerd to trees of files.

Runs as root inside a machine of its own, with only the standard library. tests/differential/bench.py packs this
package into one file.

Reads layouts from standard input, one JSON object a line, and writes one result a line. For each layout, the judge
writes its files, lets systemd reload, starts the sockets of docker.service and then docker.service. A recorder replaces
each dockerd: it writes down argv, environ and passed sockets. The judge then starts the real dockerd with these, in
namespaces of its own. dockerd connects to containerd as soon as it has all its listeners, so a containerd that never
answers shows when to read from the kernel what dockerd listens on.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.differential.judge.daemon import Daemon, collect, emit, same_start, start_daemon
from tests.differential.judge.machine import prepare
from tests.differential.judge.units import ask_systemd

MAX_DAEMONS = 64


def main() -> None:
    prepare()
    daemons: dict[int, Daemon] = {}
    known: dict[str, Any] = {}
    for line in sys.stdin:
        layout = json.loads(line)
        result: dict[str, Any] = {"id": layout["id"]}
        try:
            result["systemd"] = ask_systemd(layout)
        except Exception as error:
            result["error"] = f"{type(error).__name__}: {error}"
        record = next(iter(result.get("systemd", {}).get("records", ())), None)
        if record is None:
            emit(result)
        elif (key := same_start(layout, record)) in known:
            emit({**result, "daemon": known[key]})
        else:
            start_daemon(layout, record, Daemon(result, key), daemons)
        collect(daemons, known, MAX_DAEMONS - 1 if len(daemons) >= MAX_DAEMONS else None)
    collect(daemons, known, 0)


if __name__ == "__main__":
    main()
