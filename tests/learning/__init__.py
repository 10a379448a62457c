"""Learning: what is computed, said and exported."""
