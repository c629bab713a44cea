"""Step 5, inference: a trained run applied to rows."""
