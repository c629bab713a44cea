"""What a training leaves, and all that can be asked of it."""
