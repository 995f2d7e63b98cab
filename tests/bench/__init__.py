"""Time and memory of dockerd-guard beside other programs: `make bench`.

`inside` measures; it is copied into a machine and run there. `table` prints the measurements, with ratios to an earlier
run. No result decides whether a check passes.
"""
