"""From packed shards to batches: what is trained on (`sources`), in which order (`mixture`), as what (`batches`)."""
