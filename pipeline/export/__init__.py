"""Export: the input and its annotations as Parquet files of one schema, for publishing."""
