"""The width of the strips in which rows of bytes are summed; known without importing numba."""

STRIP = 64
"""Columns that `instructions.add_byte_rows` adds at once: one cache line of bytes."""
