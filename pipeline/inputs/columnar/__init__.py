"""Formats whose files have columns: Arrow, CSV and Parquet; and the conversion of their columns."""
