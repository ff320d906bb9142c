"""From packed shards to batches: `rows` and `documents` are the two orders of a training, `batch` has their tensors,
`held_out` the rows of validation; `training_data` has all of it by step."""
