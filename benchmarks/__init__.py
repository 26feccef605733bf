"""Benchmarks: `python -m benchmarks NAME` does the work that has no result yet and writes the page."""
