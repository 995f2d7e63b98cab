"""Fuzzing of everything that reads what others wrote: see targets.py; `make fuzz` runs it by coverage."""
