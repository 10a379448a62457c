"""Makes the README's picture: `python .ci/before_after.py BEFORE AFTER OUT` puts the two side by side."""

import sys

from PIL import Image

before, after = (Image.open(path).convert("RGB") for path in sys.argv[1:3])
gap = 8
both = Image.new("RGB", (before.width + gap + after.width, before.height), "white")
both.paste(before, (0, 0))
both.paste(after, (before.width + gap, 0))
both.save(sys.argv[3], quality=85)
