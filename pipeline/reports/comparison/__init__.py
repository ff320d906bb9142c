"""The comparison of two runs that `colophon report A B` writes: what moved from A to B.

`comparison` is the whole, from two runs to its numbers; `settings`, `documents`, `columns` and `layouts` find them;
`tables` and `page` show them on the terminal and in one HTML file.
"""
