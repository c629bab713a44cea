"""Runs in the form of other libraries: ``weft export``."""
