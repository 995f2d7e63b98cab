"""Fuzzing of everything that reads untrusted input: see targets.py. `make fuzz` runs it guided by coverage."""
