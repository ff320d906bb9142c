"""Training on packed shards, and the use of trained models.

Reading order: `loop` is a run from its first line to its last, `run` its parts, and `start`, `updates` and `validation`
what it does with them; `step` is the arithmetic of one update; `model` is the decoder with its attention and its loss;
`optimization` changes the weights; `data` provides batches; `parallel` connects several processes; `device` has what
depends on the machine; `checkpoints` stores a run, `monitoring` its metrics. `config` has every setting.
`inference`, `evaluation`, `probes`, `attention_maps`, `plots` and `export` work with trained models.
"""
