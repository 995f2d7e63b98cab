"""Docker API socket policy agent and linter."""

__version__ = "0.2.0.dev0"
