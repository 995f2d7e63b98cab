"""Debian machines for tests: systemd as PID 1 and a real dockerd, booted in seconds.

`image` builds the disks, `box` holds the namespaces of a machine, and `machine` has the operations that tests use.
Standard library only. systemd, D-Bus, dockerd and journald are the real programs.
"""
