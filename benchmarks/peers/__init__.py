"""Cutting with Torch-Pruning, at random and by magnitude, beside prunelora, on the same work."""
