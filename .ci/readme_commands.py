"""Prints the set-up commands of the README, one a line: the contents of its fenced blocks marked `sh setup`."""

import re
import sys
from pathlib import Path

text = Path(sys.argv[1]).read_text(encoding="utf-8")
for block in re.findall(r"^```sh setup\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
    print(" ".join(line.strip().rstrip("\\").strip() for line in block.splitlines()))
