"""Experiments: one file each, and what they share in `defaults`."""
