"""Importance of heads and neurons: how much the loss of this task depends on each."""
