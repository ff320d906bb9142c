"""Scoring with fastText models, compiled: words of Arrow text, tables of a model, sums of rows, probabilities.

A fastText classifier is linear up to its last function: the mean of the rows of a text's words and n-grams, times the
output matrix. Where a model has no more labels than dimensions, input and output matrix are multiplied once (`tables`),
and scoring reads as many floats per word as there are labels. A text goes `words` → `compiled.sum_rows` → `heads`.
"""
