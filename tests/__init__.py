"""Tests. A package, so that pytest puts the checkout on `sys.path` and not `tests/`, whose folders share our names."""
