"""The audit of a run: whom it fails, by how much and how surely."""
