"""`order = "rows"`: the rows that a run trains on and their weights (`sources`, `values`), the phases and the length of
a run (`phases`, `length`), the order of rows (`mixture`), the batches (`updates`)."""
