"""WARC and WET files: their records, the payloads of those that are documents, and rows of them."""
