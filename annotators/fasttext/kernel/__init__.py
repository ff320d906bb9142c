"""Scoring with fastText models, compiled: words of Arrow text, tables of a model, sums of rows, probabilities.

A fastText classifier is linear up to its last function: the mean of the rows of a text's words and n-grams, times the
output matrix. A text goes `words` → logits → `heads`. The logits of a collapsed model (`FastTextHeader.is_collapsed`)
are sums over input times output matrix (`tables`, `compiled.collapsed`): as many floats per word as there are labels.
Those of others are summed from the model file in the library's own order (`exact`, `compiled.in_order`).
"""
