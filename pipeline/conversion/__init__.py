"""Conversion: a packed layout as files of other trainers' own formats, one module a format."""
