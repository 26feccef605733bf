"""Comparison: several methods on one model, one task, the same splits and seeds, and one table of what each costs."""
