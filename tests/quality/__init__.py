"""How good the embedded engines are, in figures: `python -m tests.quality`."""
