"""How fast and how large the embedded engines are, beside a plain script that does the same."""
