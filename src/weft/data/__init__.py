"""Step 1, data: where rows come from, what their columns hold, which rows are learnt from."""
