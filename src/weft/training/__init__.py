"""Between model and inference: what is minimised, by which steps, and when to stop."""
