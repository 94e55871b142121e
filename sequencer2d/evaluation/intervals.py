"""The confidence interval of a share of few images."""

import math


def wilson(right: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's confidence interval of a share, 0 to 1: of `right` among `count`; z=1.96 means 95 %.

    `right` need not be whole: it may be a mean over several samples of `count` images. Unlike the usual ± the interval
    stays between 0 and 1 and holds for shares near both. (Wilson, JASA 22, 1927)
    """
    if count == 0:
        return 0.0, 1.0
    share = float(right / count)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def accuracy_text(right: int, count: int) -> str:
    """`91.2 % (95 % confidence: 83.0 to 95.7)`."""
    low, high = (100 * bound for bound in wilson(right, count))
    return f"{100 * right / max(1, count):.1f} % (95 % confidence: {low:.1f} to {high:.1f})"
