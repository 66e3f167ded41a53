"""Worlds with a known truth, drawn sparsely: which features fire, and what they add up to."""
