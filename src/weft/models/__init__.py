"""Step 4, model: Tokens in, states out; embeddings before it, heads after it."""
