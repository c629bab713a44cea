"""Step 6, results: how good, how sure, beside what, in words."""
