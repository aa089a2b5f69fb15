"""Experiments, one file each; shared defaults are in `defaults`."""
