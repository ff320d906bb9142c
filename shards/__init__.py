"""Training shards: tokenizer, layouts, packing, Arrow schemas, writer, reader, manifest."""
