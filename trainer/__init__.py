"""Training on packed shards, and the use of trained models.

Reading order: `loop` is a run from its first line to its last; `step` is the arithmetic of one update; `model`,
`attention` and `loss` are the computation; `optimizer` and `schedule` change the weights; `data` provides batches;
`parallel` connects several processes; `checkpoint` and `run_directory` store a run, `monitoring` its metrics. `config`
has every setting.
`inference`, `evaluation`, `probes`, `attention_maps`, `plots` and `export` work with trained models.
"""
