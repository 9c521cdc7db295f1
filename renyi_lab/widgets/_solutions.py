"""The plane through two solutions of one architecture, and what is measured on it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.validation import check_finite
from renyi_lab.operators import HessianOperator, LossSurface
from renyi_lab.perturbation import random_direction
from renyi_lab.spectrum import Spectrum, estimate_spectrum, weighted_renyi_entropy
from renyi_lab.widgets._networks import ROLES, at, check_architectures, check_targets, error_at
from renyi_lab.widgets._reduced import quiet_entropy
from renyi_lab.widgets._two_layer import TwoLayerHessian

# Of the position u: its step, how far the plane extends beyond the solutions, and the largest number of steps.
_STEP, _BEYOND, _MOST_STEPS = 0.05, 0.15, 60
_GENERIC = (0.37, 0.13)  # a point where nothing vanishes, unlike at constructed solutions
_FINER = 3  # rows of losses for each row of spectra
_SAME_LINE = 1e-6  # a third solution this close to the line, relative to the distance, is on it up to rounding
_NUM_MATVECS = 100  # of each estimated spectrum. Heuristic: a quarter of a second for a small network.


class SolutionPlane:
    """``θ(t, s) = a + t (b − a) + s d`` with ``d`` orthogonal to ``b − a``, and measurements on it.

    ``d`` leads to the third solution at ``s = 1`` or, where there is none, is random and as long as the shorter of
    ``a`` and ``b``.

    Args:
        models: ``a``, ``b`` and, where there is one, the third solution that the plane contains.
        loss_fn: Loss, as for `HessianOperator`.
        data: Training data, as for `HessianOperator`.
        test_data: Data for the test error, or ``None``.
        seed: Random seed for ``d`` without a third solution.

    Attributes:
        ts: Values of ``t``, 0 and 1 among them, ``(j,)``.
        rows: Values of ``s`` of the spectra, 0 among them, ``(k,)``.
        fine_rows: Values of ``s`` of the losses.
        third: Coordinate ``t`` of the third solution, whose ``s`` is 1, or ``None``.
        losses: Training loss, ``(j, len(fine_rows))``.
        errors: Share of wrong predictions on the test data, ``(j, k)``, or ``None`` without test data.
        spectra: By ``(index of t, index of s)``: at all points where they are exact, else on the path alone.
    """

    def __init__(
        self, models: Sequence[nn.Module], loss_fn: Callable[..., Tensor], data: Any, test_data: Any, seed: int
    ) -> None:
        check_architectures(models)
        self.operator = HessianOperator(copy.deepcopy(models[0]), loss_fn, data)
        names = self.operator.parameter_names
        points = [self.operator.flatten([dict(m.named_parameters())[n].detach() for n in names]) for m in models]
        for name, point in zip(ROLES, points, strict=False):
            check_finite(f"a weight of {name}", point, "a training that diverged.")
        self._start, self._along = points[0], points[1] - points[0]
        self._across, self.third = self._second_direction(points, seed)
        low, high = (-1, 5) if self.third is not None else (-3, 3)
        self.rows = np.arange(low, high + 1) / 4
        self.fine_rows = np.arange(_FINER * low, _FINER * high + 1) / (4 * _FINER)
        self._surface = LossSurface(self.operator)
        self._check_function(models, loss_fn, data)
        test = None if test_data is None else HessianOperator(self.operator.model, loss_fn, test_data)
        if test:
            check_targets(test)
        self._hessian = self._two_layer()
        self.is_exact = self._hessian is not None
        self.ts = _grid_of_t(self.third, 1 if self.is_exact else 2)
        with progress_bar(len(self.ts), "points between the solutions") as bar:
            losses, errors = [], []
            self.spectra: dict[tuple[int, int], Spectrum] = {}
            for i, t in enumerate(self.ts.tolist()):
                losses.append([self._surface.loss(self.point(t, s)) for s in self.fine_rows.tolist()])
                errors.append([error_at(test, self.point(t, s)) for s in self.rows.tolist()] if test else [])
                for j, s in enumerate(self.rows.tolist()):
                    if self.is_exact or s == 0:
                        self.spectra[i, j] = self._spectrum(t, s)
                bar.update()
        self.losses: FloatArray = np.array(losses)
        self.errors: FloatArray | None = np.array(errors) if test else None
        for label, i in (("a", self.index_of(0.0)), ("b", self.index_of(1.0))):
            if not math.isfinite(self.losses[i, self.origin * _FINER]):
                raise ValueError(f"the loss at {label} is not finite; did its training diverge?")

    @property
    def origin(self) -> int:
        """Index of ``s = 0`` among `rows`."""
        return int(np.abs(self.rows).argmin())

    def index_of(self, t: float) -> int:
        """Index of the value of ``t`` that is nearest."""
        return int(np.abs(self.ts - t).argmin())

    def point(self, t: float, s: float) -> Tensor:
        """The flat vector of weights ``θ(t, s)``."""
        return self._start + t * self._along + s * self._across

    def loss(self, i: int, j: int) -> float:
        """Training loss at a point of the grid of spectra."""
        return float(self.losses[i, _FINER * j])

    def directions(self) -> tuple[Tensor, Tensor]:
        """``b − a`` and ``d``."""
        return self._along, self._across

    def entropy(self, i: int, j: int, alpha: float) -> Estimate:
        """``H_α`` at a point of the grid; NaN where there is no spectrum or no curvature."""
        spectrum = self.spectra.get((i, j))
        if spectrum is None or not self.is_exact or not spectrum.magnitudes.any():
            return Estimate(math.nan) if spectrum is None else quiet_entropy(spectrum, alpha)
        # All values of an alpha's curve take a few milliseconds so.
        magnitudes, weights = torch.from_numpy(spectrum.magnitudes), torch.from_numpy(spectrum.weights)
        return Estimate(float(weighted_renyi_entropy(magnitudes, weights, alpha)))

    def trace(self, i: int, j: int) -> Estimate:
        """The trace at a point of the grid; NaN where there is no spectrum."""
        return self.spectra[i, j].trace if (i, j) in self.spectra else Estimate(math.nan)

    def _second_direction(self, points: list[Tensor], seed: int) -> tuple[Tensor, float | None]:
        length = self._along.norm()
        if not length > 0:
            raise ValueError("a and b have the same weights, so there is no path between them; pass two solutions.")
        wanted = random_direction(self.operator, seed) if len(points) < 3 else points[2] - self._start
        t = float((wanted @ self._along) / length**2)
        across = wanted - t * self._along
        distance = across.norm()
        if not distance > _SAME_LINE * wanted.norm():
            raise ValueError("third lies on the line through a and b, so they span no plane; pass another, or None.")
        if len(points) == 3:
            return across, t
        lengths = [norm for norm in (points[0].norm(), points[1].norm()) if norm > 0]
        return across * (min(lengths) / distance), None

    def _check_function(self, models: Sequence[nn.Module], loss_fn: Callable[..., Tensor], data: Any) -> None:
        """Layers of other kinds may have parameters of the same names and shapes."""
        weights = self.point(*_GENERIC)
        expected = self._surface.loss(weights)
        for name, model in zip(ROLES[1:], models[1:], strict=False):
            found = LossSurface(HessianOperator(copy.deepcopy(model), loss_fn, data)).loss(weights)
            if not math.isclose(expected, found, rel_tol=1e-5) and math.isfinite(expected):
                raise ValueError(
                    f"a and {name} have different losses with the same weights, {expected:.4g} and {found:.4g}, so "
                    "they are different architectures; or the loss is random."
                )

    def _two_layer(self) -> TwoLayerHessian | None:
        with at(self.operator, self.point(*_GENERIC)):
            return TwoLayerHessian.of(self.operator)

    def _spectrum(self, t: float, s: float) -> Spectrum:
        point = self.point(t, s)
        if self._hessian is None:
            with at(self.operator, point):
                return estimate_spectrum(self.operator, num_matvecs=_NUM_MATVECS, progress=False)
        found = self._hessian.eigenvalues(point).numpy()
        rest = self.operator.dim - len(found)
        if rest < 0:  # of a small network, more dimensions were counted than there are
            return Spectrum.from_eigenvalues(found[np.argsort(-np.abs(found))[: self.operator.dim]])
        order = np.argsort(nodes := np.append(found, 0.0), kind="stable")
        return Spectrum(nodes[order], np.append(np.ones(len(found)), float(rest))[order], self.operator.dim)


def positions(t: Any) -> Any:
    """``u`` for ``t = (1 − cos πu) / 2``, so that steps are smaller near the solutions; beyond them a parabola."""
    t = np.asarray(t, dtype=np.float64)
    inside = np.arccos(1 - 2 * np.clip(t, 0, 1)) / math.pi
    beyond = 2 / math.pi * np.sqrt(np.maximum(t - 1, 0) + np.maximum(-t, 0))
    return inside + np.where(t > 1, beyond, -beyond)


def _grid_of_t(third: float | None, coarser: int) -> FloatArray:
    """Values of ``t`` at equidistant positions, with 0 and 1."""
    ends = positions([0.0, 1.0, *([] if third is None else [third])])
    low, high = ends.min() - _BEYOND, ends.max() + _BEYOND
    count = round(1 / (coarser * _STEP * max(1.0, (high - low) / _STEP / _MOST_STEPS)))
    u = np.arange(math.floor(low * count + 1e-9), math.ceil(high * count - 1e-9) + 1) / count
    inside = (1 - np.cos(math.pi * np.clip(u, 0, 1))) / 2
    beyond = (math.pi / 2) ** 2 * (np.maximum(u - 1, 0) ** 2 - np.maximum(-u, 0) ** 2)
    return np.asarray(np.round(inside + beyond, 6), dtype=np.float64)
