"""The measures of one trained model: numbers, and curves over the order α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from renyi_lab._utils.validation import check_printable, check_reals, printed, shown


@dataclass(frozen=True)
class Measurement:
    """The measures of one trained model.

    Attributes:
        values: Mapping from measure to number.
        curves: Mapping from measure to its value per order α, as in ``{"renyi_sharpness": {0.5: -8.3, 1.0: -7.0}}``.
        chosen_alphas: Mapping from curve to the order that `choose_alpha` picks from the spectrum of that model.

    Raises:
        TypeError: One of the three, or a curve, is not a mapping, or a name is not text.
        ValueError: A name has line breaks or control characters.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    chosen_alphas: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_mapping("values", self.values, "{'trace': 3.0}")
        _check_mapping("curves", self.curves, "{'sharpness': {0.5: -2.0, 1.5: -1.0}}")
        _check_mapping("chosen_alphas", self.chosen_alphas, "{'sharpness': 1.5}")
        for name in (*self.values, *self.curves):
            check_printable("the name of a measure", name)
        for name, curve in self.curves.items():
            _check_mapping(f"curves[{printed(name)}]", curve, "{0.5: -2.0, 1.5: -1.0}")

    def at(self, alphas: Sequence[float]) -> dict[str, float]:
        """All measures as numbers by name: curves at ``alphas`` and at the order chosen by the rule, then the values.

        Args:
            alphas: Orders at which to evaluate every curve.

        Raises:
            ValueError: A curve was not recorded at one of ``alphas``, or at its chosen order.

        Example:
            >>> Measurement({"trace": 3.0}, {"sharpness": {0.5: -2.0, 1.5: -1.0}}, {"sharpness": 1.5}).at([0.5])
            {'sharpness_0.5': -2.0, 'sharpness_by_rule': -1.0, 'trace': 3.0}
        """
        row: dict[str, float] = {}
        orders = check_reals("alphas", alphas)
        for name in self.curves:
            label, _, block = name.partition(" ")
            suffix = f" {block}" if block else ""
            for alpha in orders:
                row[f"{label}_{alpha:g}{suffix}"] = self._value("alphas holds", name, alpha)
            if name in self.chosen_alphas:
                chosen = self.chosen_alphas[name]
                row[f"{label}_by_rule{suffix}"] = self._value(f"chosen_alphas[{printed(name)}] is", name, chosen)
        return row | dict(self.values)

    def check_chosen_alphas(self) -> None:
        """Raise ``ValueError`` if an order was chosen for a curve that does not exist or was not recorded there."""
        for name, alpha in self.chosen_alphas.items():
            if name not in self.curves:
                raise ValueError(f"chosen_alphas has an order for {printed(name)}, but there is no such curve.")
            self._value(f"chosen_alphas[{printed(name)}] is", name, alpha)

    def _value(self, what: str, name: str, alpha: float) -> float:
        if alpha not in self.curves[name]:
            recorded = ", ".join(f"{a:g}" for a in self.curves[name])
            raise ValueError(f"{what} {alpha:g}, where {name} was not recorded; available: {recorded}.")
        return self.curves[name][alpha]


def _check_mapping(name: str, value: Any, example: str) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, such as {example}, got {shown(value)}.")
