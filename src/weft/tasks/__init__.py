"""The six steps, filled by each task."""
