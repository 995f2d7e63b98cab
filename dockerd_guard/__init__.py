"""Keeps the Docker API listening where a YAML policy says, and nowhere else."""

__version__ = "0.1.0"
