"""The `pooled` classifier: rows of token n-grams, averaged over a document, and a small network for each head."""
