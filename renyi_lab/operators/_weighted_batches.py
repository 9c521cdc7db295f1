"""Batches with the weights of their losses in the loss of all data."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from renyi_lab._utils.batches import Batch
from renyi_lab._utils.masses import LossReduction
from renyi_lab._utils.ranks import Ranks, agreed
from renyi_lab._utils.validation import check_choice


def choose_loss_style(batches: Sequence[Batch], loss_style: str | None) -> str:
    """How the loss is called: ``loss_style``, or by default as all batches are pairs or not."""
    pairs = all(batch.is_pair for batch in batches)
    default = "output_target" if pairs else "model_batch"
    chosen = check_choice("loss_style", default if loss_style is None else loss_style, ("output_target", "model_batch"))
    if chosen == "output_target" and not pairs:
        raise ValueError('loss_style="output_target" needs batches (x, y); use "model_batch" for other batches.')
    return chosen


class WeightedBatches:
    """Batches whose losses, multiplied by their weights, add up to the loss of all data.

    Args:
        batches: Frozen batches. Those of mass 0, over which there is no mean, are left out.
        reduction: How the loss reduces a batch.
        ranks: Processes with batches of their own, to which ``num_samples`` and ``total_mass`` extend.

    Attributes:
        batches: The batches with a mass.
        num_samples: Number of samples, those of mass 0 included.
        total_mass: Denominator of the mean over all data; the number of samples for a sum.
        several: Whether there is more than one batch.
        num_before: Number of batches with a mass of the ranks before this one.
    """

    def __init__(self, batches: Sequence[Batch], reduction: LossReduction, ranks: Ranks | None = None) -> None:
        self._is_mean = reduction.kind == "mean"
        with agreed(ranks):
            masses = [reduction.mass(batch) for batch in batches] if reduction.kind != "sum" else []
        num_kept = sum(mass > 0 for mass in masses) if reduction.kind != "sum" else len(batches)
        own = sum(batch.size for batch in batches), math.fsum(masses), len(batches), num_kept
        everywhere = [own] if ranks is None else ranks.gather(own)
        self.num_samples, total = sum(each[0] for each in everywhere), math.fsum(each[1] for each in everywhere)
        if self.num_samples == 0:
            raise ValueError("every rank of the process group has empty data; give each its part of the samples.")
        self.num_before = 0 if ranks is None else sum(each[3] for each in everywhere[: ranks.rank])
        self.several = sum(each[2] for each in everywhere) > 1
        if reduction.kind == "sum":
            self.batches, self.total_mass = tuple(batches), float(self.num_samples)
            self._weights = [1.0] * len(batches)
            return
        self.total_mass = reduction.check_total(total)
        self.batches = tuple(batch for batch, mass in zip(batches, masses, strict=True) if mass > 0)
        self._weights = [mass / self.total_mass for mass in masses if mass > 0]

    def share(self, total_mass: float, num_samples: int) -> None:
        """Make these a part of more data, whose losses add up to those of all.

        Args:
            total_mass: Denominator of the mean over all.
            num_samples: Number of samples of all.
        """
        if self._is_mean:
            self._weights = [weight * (self.total_mass / total_mass) for weight in self._weights]
        self.total_mass, self.num_samples = total_mass, num_samples

    def weighted(self, loss: Tensor, index: int) -> Tensor:
        """The loss of one batch as a part of the loss of all data.

        Raises:
            ValueError: The loss is not one number.
        """
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"loss_fn must return one number per batch (reduction 'mean' or 'sum'), got {shape}{_hint(loss)}."
            )
        return loss.reshape(()) * self._weights[index]


def _hint(found: object) -> str:
    if found is None:
        return "; models that compute their own loss do so only for batches with labels"
    if getattr(found, "loss", None) is not None:
        return "; return its loss, as in loss_fn=lambda model, batch: model(**batch).loss"
    return ""
