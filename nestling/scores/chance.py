"""Whether two networks differ on the same photographs by more than chance: McNemar's test, and how large a loss it leaves open."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

LIKELY = 0.05  # a difference that chance brings about more often than this is said to be one that it may have
Right = NDArray[np.bool_]  # [N], which photographs are answered rightly


@dataclass(frozen=True)
class Changed:
    """Two networks' answers on the same photographs. lost: right by the first alone; won: by the second alone. images: of all."""

    lost: int
    won: int
    images: int

    @property
    def p(self) -> float:
        """How often chance alone would set the two as far apart: two-sided, exact.

        Source: McNemar 1947, with the binomial in place of chi-squared.
        """
        return min(1.0, 2 * chance_of(max(self.lost, self.won), min(self.lost, self.won)))

    @property
    def likely(self) -> bool:
        """Whether chance may have brought the difference about."""
        return self.p >= LIKELY

    @property
    def loss(self) -> tuple[float, float]:
        """95% interval of the first's top-1 minus the second's; (-1, 1) of no photograph.

        Source: Bonett and Price 2012, adjusted Wald interval for a difference of paired proportions.
        """
        if not self.images:
            return -1.0, 1.0
        total = self.images + 2
        lost, won = (self.lost + 1) / total, (self.won + 1) / total
        spread = 1.959964 * math.sqrt((lost + won - (lost - won) ** 2) / total)
        return max(-1.0, lost - won - spread), min(1.0, lost - won + spread)


def changed(first: Right, second: Right) -> Changed:
    """first, second: bool [N], of the same photographs in the same order."""
    return Changed(int((first & ~second).sum()), int((second & ~first).sum()), len(first))


def chance_of(lost: int, won: int) -> float:
    """How often at least `lost` of `lost + won` fair coins fall on one side: the exact one-sided test of McNemar 1947."""
    coins = lost + won
    return float(sum(comb(coins, count) for count in range(lost, coins + 1)) / 2**coins)
