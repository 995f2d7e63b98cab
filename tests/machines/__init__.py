"""Whole Debian machines to test on: systemd as PID 1 and a real dockerd, booted in seconds.

`image` builds what is on their disks, `box` holds the namespaces they live in, `machine` is one
of them with everything a test does to it. Standard library only. Nothing here stands in for
systemd, D-Bus, dockerd or journald: what a test sees is what a host would do.
"""
