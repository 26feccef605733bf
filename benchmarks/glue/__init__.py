"""Six GLUE tasks, four methods, three seeds: does pruning before LoRA cost quality, and what does it give?"""
