"""Families of transformers: their parts by name, reading and replacing them."""
