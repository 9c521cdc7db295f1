r"""Sums over pairs of models, added up by the settings of the two models, from which every weighted τ_b follows.

With s the sign of a difference, the sums over the models i of setting a and j of setting b are

    agreement[a, b] = Σ s(x_i − x_j) s(y_i − y_j),   x_pairs[a, b] = Σ s(x_i − x_j)²,   y_pairs[a, b] = Σ s(y_i − y_j)².

A bootstrap resample draws setting a w_a times. Two copies of a setting hold the same models, so pairs between them are
ties that the population does not have: they would pull τ_b towards zero. They are left out, and each sum becomes

    Σ_{a≠b} w_a w_b S[a, b] + Σ_a w_a S[a, a].
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from renyi_lab._utils.typing import FloatArray


@dataclass(frozen=True, eq=False)
class PairSums:
    """The three sums per pair of settings, each of shape ``(num_settings, num_settings)``."""

    agreement: FloatArray
    x_pairs: FloatArray
    y_pairs: FloatArray

    def tau(self, weights: FloatArray) -> FloatArray:
        """τ_b with setting a counted ``weights[k, a]`` times, shape ``(k,)``; NaN where it is undefined."""
        product = _total(self.x_pairs, weights) * _total(self.y_pairs, weights)
        with np.errstate(invalid="ignore", divide="ignore"):  # x or y may be constant with these weights
            return np.asarray(_total(self.agreement, weights) / np.sqrt(product))


def pair_sums(x: FloatArray, y: FloatArray, codes: np.ndarray) -> PairSums:
    """The sums of models with the settings ``codes``, integers from 0 on; models without a finite value count nothing.

    Args:
        x: First measurement, shape ``(k,)``.
        y: Second measurement, shape ``(k,)``.
        codes: Number of the setting of each model, shape ``(k,)``.
    """
    usable, order = np.isfinite(x) & np.isfinite(y), np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    sign_x, sign_y = (_signs(np.where(usable, values, np.nan)[order]) for values in (x, y))
    pairs = (sign_x * sign_y, np.abs(sign_x), np.abs(sign_y))
    return PairSums(*(np.add.reduceat(np.add.reduceat(p, starts, axis=0), starts, axis=1) for p in pairs))


def _signs(values: FloatArray) -> FloatArray:
    """The sign of every difference, shape ``(k, k)``; 0 where a value is NaN."""
    return np.asarray(np.nan_to_num(np.sign(values[:, None] - values)))


def setting_codes(settings: Sequence[Hashable]) -> np.ndarray:
    """Equal integers for equal settings, from 0 on in the order of their first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(setting, len(numbers)) for setting in settings], dtype=np.int64)


@functools.lru_cache(maxsize=8)  # a table uses the same resamples for every measure
def resampled_settings(num_settings: int, num_resamples: int, seed: int) -> FloatArray:
    """How often each resample draws each setting, shape ``(num_resamples, num_settings)``."""
    rng = np.random.default_rng(seed)
    chances = np.full(num_settings, 1 / num_settings)
    counts = rng.multinomial(num_settings, chances, size=num_resamples).astype(np.float64)
    counts.flags.writeable = False
    return counts


def _total(sums: FloatArray, weights: FloatArray) -> FloatArray:
    between = np.einsum("ka,ka->k", weights @ sums, weights)
    return np.asarray(between - (weights**2 - weights) @ np.diagonal(sums))
