"""Packing: a partition's tokens and metadata as fixed-length sequences. `pack` uses `methods`, then `runs`."""
