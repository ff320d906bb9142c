"""The `embedding` classifier: a small network for each head, on the vectors of any embedder."""
