"""Generated configuration trees: dockerd-guard's reading compared with the real systemd and the real dockerd.

`layout` is a tree of files as a value, `generate` makes one from (seed, number), `judge` runs inside a machine and
applies the tree to PID 1 and dockerd, `bench` runs a machine with the judge, `compare` compares the results,
`minimise` reduces a mismatch, and `python3 -m tests.differential` is the command line.
"""
