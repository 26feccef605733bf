"""Reproduction: the paper's tables 1 to 4 and figure 1 beside ours, and what does not reproduce."""
