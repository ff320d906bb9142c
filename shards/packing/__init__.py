"""Packing: a partition's tokens and metadata as fixed-length sequences. `pack` calls `plan`, then `runs`."""
