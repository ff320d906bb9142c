"""What learns from packed shards: data order, model, optimizer, loop, checkpoint."""
