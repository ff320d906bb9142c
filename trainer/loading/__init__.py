"""Packed layouts for other trainers' loops: torch data sets, the seeded order and its state, collators.

`colophon.torch` has the public names.
"""
