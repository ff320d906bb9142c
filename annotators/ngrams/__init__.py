"""n-grams of words as numbers: the common part of the annotators that compare texts."""
