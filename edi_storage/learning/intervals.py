"""How sure a share is: Wilson's interval, which holds for few verdicts and near 0 and 1 too."""

from __future__ import annotations

import math
from typing import Final

#: Two-sided 95 %.
Z95: Final = 1.959964


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Lower and upper bound of a share, both in 0..1, of `successes` among `n`; (0, 1) when n is 0.

    Half successes (a partial verdict) are taken as they are: the interval is then somewhat too wide, never too
    narrow, since the variance of such a reward is smaller than p (1 - p). Source: E. B. Wilson, 1927.
    """
    if n <= 0:
        return 0.0, 1.0
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(0.0, share * (1 - share)) / n + z * z / (4 * n * n))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
