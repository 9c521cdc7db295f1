"""The Bernoulli KL divergence kl(q‖p) and its inverses, to which the tight bounds reduce."""

from __future__ import annotations

import math

from renyi_lab._utils.validation import check_real


def kl_bernoulli(q: float, p: float) -> float:
    """The divergence kl(q‖p) = q log(q/p) + (1−q) log((1−q)/(1−p)) of Bernoulli(q) from Bernoulli(p), in nats.

    Args:
        q: Success probability in [0, 1].
        p: Success probability in [0, 1]; the divergence is infinite where p excludes an outcome of positive q.

    Raises:
        ValueError: A probability outside [0, 1].

    Example:
        >>> round(kl_bernoulli(0.5, 0.25), 12) == round(0.5 * math.log(4 / 3), 12)
        True
    """
    q, p = check_real("q", q, 0.0, 1.0), check_real("p", p, 0.0, 1.0)
    return max(0.0, _share(q, p, p - q) + _share(1 - q, 1 - p, q - p))


def _share(x: float, y: float, difference: float) -> float:
    """Return x log(x/y); ``difference`` = y − x is passed to keep the digits that cancel where x ≈ y."""
    if x == 0:
        return 0.0
    if y == 0:
        return math.inf
    return -x * math.log1p(difference / x) if abs(difference) < x / 2 else x * (math.log(x) - math.log(y))


def kl_inverse_upper(q: float, c: float) -> float:
    """The largest p ≥ q with kl(q‖p) ≤ c, to 1e-12: an upper confidence limit for an observed mean q.

    Newton's method inside a bracket that starts from Pinsker's p ≤ q + √(c/2), or, where it is smaller, from the limit
    for large c, p ≤ 1 − exp(−(c + h(q))/(1−q)) with the entropy h(q) = −q log q − (1−q) log(1−q).

    Args:
        q: Observed mean, in [0, 1].
        c: Budget in nats, ≥ 0 (infinity gives 1).
    """
    q, c = check_real("q", q, 0.0, 1.0), check_real("c", c, 0.0, allow_infinite=True)
    if q == 1.0 or c == 0.0:
        return q
    if q == 0.0 or c == math.inf:
        return -math.expm1(-c)
    entropy = -q * math.log(q) - (1 - q) * math.log1p(-q)
    low, high = q, min(q + math.sqrt(c / 2), -math.expm1(-(c + entropy) / (1 - q)))
    p = high if q < high < 1.0 else (low + high) / 2
    for _ in range(200):  # bisection alone would need 50
        if high - low <= 1e-15:
            return high
        excess = kl_bernoulli(q, p) - c
        low, high = (low, p) if excess > 0 else (p, high)
        newton = p - excess * p * (1 - p) / (p - q)  # d kl/dp = (p−q) / (p(1−p))
        following = newton if low < newton < high else (low + high) / 2
        if abs(following - p) <= 1e-13 * min(p, 1 - p):  # near 1, 1 − p must have converged too
            return following
        p = following
    raise ArithmeticError(f"kl_inverse_upper({q!r}, {c!r}) did not converge; please report these two numbers.")


def kl_inverse_lower(q: float, c: float) -> float:
    """The smallest p ≤ q with kl(q‖p) ≤ c, to 1e-12. Arguments and errors as for `kl_inverse_upper`."""
    q = check_real("q", q, 0.0, 1.0)
    return min(q, 1.0 - kl_inverse_upper(1.0 - q, c))
