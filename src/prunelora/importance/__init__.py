"""Importance scores of heads and neurons for a task."""
