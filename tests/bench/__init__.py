"""How fast and how light, beside what else does that work: `make bench`.

`inside` is what measures; it is copied into a machine and run there. `table` shows what was measured, as ratios,
beside an earlier run. A figure here never decides whether something passes.
"""
