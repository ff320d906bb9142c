"""The page that `colophon report` writes: one HTML file with the charts and tables of a run.

`page` is the whole from a run to its text; `columns`, `relations`, `lengths` and `packed` read the run's files,
partition by partition; `charts` makes Vega-Lite specifications of their numbers; `markup` escapes all that is shown.
"""
