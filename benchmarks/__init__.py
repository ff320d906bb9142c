"""Measures the whole job beside peers, on one machine: `python -m benchmarks --help`."""
