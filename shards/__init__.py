"""What a training shard is: tokenizer, layouts, packing, Arrow schemas, writer, reader, manifest."""
