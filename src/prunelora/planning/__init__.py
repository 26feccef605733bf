"""Planning: pure arithmetic over scores and shapes; no model is imported here."""
