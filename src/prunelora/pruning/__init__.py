"""Pruning: surgery that removes weights, masks that emulate it, and repair by least squares."""
