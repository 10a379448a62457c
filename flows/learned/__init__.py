"""The report of what was learned in its three places: terminal, web page, artifact. Nothing is computed here."""
