"""What every package shares: arrays, digests, differences, durable files, errors. It imports nothing else of ours."""
