"""Does our reading say what the real systemd and the real dockerd do? Generated trees, judged by both.

`layout` is a tree of files as a value, `generate` makes one from (seed, number), `judge` runs inside a
machine and asks PID 1 and dockerd, `compare` sets their answer against ours, `minimise` shrinks what
differs, and `python3 -m tests.differential` runs it all.
"""
