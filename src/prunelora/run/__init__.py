"""Runs: recipes, run folders, and the execution of a recipe in a folder."""
