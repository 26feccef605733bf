"""Task data: reading, checking, splitting, tokenising."""
