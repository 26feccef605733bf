"""Pruning: the surgery that makes weights smaller, and the masks that check it."""
