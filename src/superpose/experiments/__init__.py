"""Experiments: one file each, with its parameters, what it must show, and its findings."""
