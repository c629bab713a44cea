"""What a run will need, before any of it is spent."""
