"""How a run brings a store in step with its source: list, read, decide, chunk, embed, publish."""
