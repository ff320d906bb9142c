"""What learns from packed shards.

To be read in one sitting: `loop` has a run from its first line to its last, `step` one update's arithmetic; `model`,
`attention` and `loss` are what is computed, `optimizer` and `schedule` what changes the weights, `data` where batches
come from, `parallel` what several processes share, `checkpoint` what a run goes on from. `config` has every setting.
`after` is for what has been trained: evaluation, generation, curves, and rooms for `probes`, `attention` and `export`.
"""
