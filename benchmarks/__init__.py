"""Measurements behind the numbers in the documentation; each writes its result, with machine and seed, as JSON."""
