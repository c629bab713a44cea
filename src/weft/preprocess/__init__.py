"""Step 2, preprocess: from cells as they came to clean, typed values; what is bad is set aside."""
