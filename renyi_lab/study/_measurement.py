"""The measures of one trained model: numbers, and curves over the order α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from renyi_lab._utils.validation import check_reals


@dataclass(frozen=True)
class Measurement:
    """The measures of one trained model.

    Attributes:
        values: Mapping from measure to number.
        curves: Mapping from measure to its value per order α, as in ``{"renyi_sharpness": {0.5: -8.3, 1.0: -7.0}}``.
        chosen_alphas: Mapping from curve to the order that `choose_alpha` picks from the spectrum of that model.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    chosen_alphas: Mapping[str, float] = field(default_factory=dict)

    def at(self, alphas: Sequence[float]) -> dict[str, float]:
        """All measures as numbers by name: curves at ``alphas`` and at the order chosen by the rule, then the values.

        Args:
            alphas: Orders at which to evaluate every curve.

        Raises:
            ValueError: A curve was not recorded at one of ``alphas``.

        Example:
            >>> Measurement({"trace": 3.0}, {"sharpness": {0.5: -2.0, 1.5: -1.0}}, {"sharpness": 1.5}).at([0.5])
            {'sharpness_0.5': -2.0, 'sharpness_by_rule': -1.0, 'trace': 3.0}
        """
        row: dict[str, float] = {}
        orders = check_reals("alphas", alphas)
        for name, curve in self.curves.items():
            label, _, block = name.partition(" ")
            suffix = f" {block}" if block else ""
            for alpha in orders:
                if alpha not in curve:
                    recorded = ", ".join(f"{a:g}" for a in curve)
                    raise ValueError(f"alphas holds {alpha:g}, where {name} was not recorded; available: {recorded}.")
                row[f"{label}_{alpha:g}{suffix}"] = curve[alpha]
            if name in self.chosen_alphas:
                row[f"{label}_by_rule{suffix}"] = curve[self.chosen_alphas[name]]
        return row | dict(self.values)
