"""A simulated host: a model of systemd, dockerd, the disk, the bus, the network and the clock.

The real observe-to-record code runs on it, from a seed, in simulated time. tests/system/test_simulation.py plays
scenarios of it on booted machines, so that the model stays honest.
"""
