"""Docker API socket policy agent and linter."""

__version__ = "0.1.0"
