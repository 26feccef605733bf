"""Evaluation: quality, parameters, MACs, latency and memory, dense beside pruned."""
