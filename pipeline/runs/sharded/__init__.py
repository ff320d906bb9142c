"""Runs in shards: commands that each do a share of the partitions, and the one that makes a run of them."""
