"""From packed shards to batches: which rows a run trains on (`sources`, `phases`, `held_out`), in which order
(`mixture`), as tensors (`batch`); `training_data` has all of it by step."""
