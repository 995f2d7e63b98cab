"""What several test modules share. No test module imports another (tests/unit/test_imports.py)."""
