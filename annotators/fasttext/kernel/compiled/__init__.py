"""Everything that numba compiles: finding words, summing rows, the last functions, and building a model's tables.

Numba knows no keyword-only arguments, hence the many positional ones; indices are unsigned where a check for negative
ones would cost.
"""
