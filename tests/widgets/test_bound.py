"""`BoundExplorer` against the bounds of the library."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from explorer_view import ExplorerPage, caption

from renyi_lab import Spectrum
from renyi_lab.bounds import laplace_kl, laplace_pac_bayes, renyi_laplace, sampled_pac_bayes, waterfall
from renyi_lab.widgets import BoundExplorer

VALUES = np.concatenate([[5.0, 2.0, 1.0, -0.5], np.geomspace(1e-4, 1e-1, 60)])
SIGMAS, LOSSES = (0.0125, 0.025, 0.05, 0.1), (0.02, 0.025, 0.04, 0.2)
SETTINGS: dict[str, Any] = {
    "squared_distance": 0.04,
    "num_samples": 1000,
    "num_draws": 2000,
    "beta": 1e3,
    "trivial_value": 0.9,
}


def make(**changes: Any) -> BoundExplorer:
    arguments = {"spectrum": VALUES, "sigmas": SIGMAS, "losses": LOSSES} | SETTINGS | changes
    return BoundExplorer(arguments.pop("spectrum"), arguments.pop("sigmas"), arguments.pop("losses"), **arguments)


@pytest.fixture
def explorer() -> BoundExplorer:
    return make()


def test_the_bound_is_the_librarys_and_starts_at_the_best_sigma(explorer: BoundExplorer) -> None:
    of_grid = dict(zip(SIGMAS, LOSSES, strict=True))
    library = laplace_pac_bayes(
        Spectrum.from_eigenvalues(VALUES),
        empirical_loss=lambda variance, beta: of_grid[min(SIGMAS, key=lambda s: abs(s**2 - variance))],
        squared_distance=0.04,
        num_samples=1000,
        num_draws=2000,
        prior_variances=[s**2 for s in SIGMAS],
        betas=[1e3],
    )
    assert explorer.bound.value == pytest.approx(library.value, abs=1e-12)
    assert explorer.sigma.value == explorer.best_sigma == pytest.approx(math.sqrt(library.terms["prior_variance"]))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_second_bound_is_the_renyi_bound_and_never_smaller(explorer: BoundExplorer, alpha: float) -> None:
    explorer.alpha.value, explorer.sigma.value = alpha, 0.05
    clipped = Spectrum.from_eigenvalues(VALUES.clip(min=0))
    x = 0.05**2 * 1e3 * clipped.nodes
    library = renyi_laplace(
        0.04, float(clipped.renyi_entropy(alpha)), float(clipped.trace), clipped.dim, alpha, 1000,
        squared_distance=0.04, prior_variance=0.05**2, beta=1e3, num_draws=2000, choices=4,
        effective_parameters=float((x / (1 + x)).sum()),
    )  # fmt: skip
    assert explorer.renyi_bound.value == pytest.approx(library.value, abs=1e-12)
    assert explorer.renyi_bound.value >= explorer.bound.value


def test_the_sliders_move_bars_curves_and_caption(explorer: BoundExplorer) -> None:
    for control, value in (
        (explorer.sigma, 0.0125),
        (explorer.num_samples, 1e5),
        (explorer.delta, 1e-4),
        (explorer.alpha, 0.5),
    ):
        before = explorer.picture.value
        control.value = value
        assert explorer.picture.value != before
        for row, bound in enumerate((explorer.bound, explorer.renyi_bound)):
            widths = [bars[row].get_width() for bars in explorer.parts]
            assert widths == pytest.approx(list(waterfall(bound).values()), abs=1e-12)
            assert explorer.parts[-1][row].get_x() + widths[-1] == pytest.approx(bound.value)
        assert explorer.marker.get_ydata()[0] == explorer.bound.value
        assert explorer.curve.get_ydata()[list(SIGMAS).index(explorer.sigma.value)] == explorer.bound.value
        assert f"bound {explorer.bound.value:.3f}" in caption(explorer)
    terms = explorer.bound.terms
    assert (terms["num_samples"], terms["choices"]) == (100_000, 4)


def test_not_paying_gives_a_smaller_number_that_is_said_to_be_no_certificate(explorer: BoundExplorer) -> None:
    paid = explorer.bound.value
    assert "no certificate" not in caption(explorer)
    explorer.pay.value = False
    assert explorer.bound.value < paid
    kl = laplace_kl(VALUES.clip(min=0), np.ones(64), 64, 0.04, explorer.sigma.value**2, 1e3)
    loss = LOSSES[SIGMAS.index(explorer.sigma.value)]
    assert explorer.bound.value == pytest.approx(sampled_pac_bayes(loss, float(kl), 1000, num_draws=2000).value)
    assert "no certificate if σ was chosen among 4 without paying" in caption(explorer)


def test_a_vacuous_bound_is_called_so(explorer: BoundExplorer) -> None:
    assert "vacuous" not in caption(explorer)
    explorer.num_samples.value, explorer.sigma.value = 10, 0.0125
    assert f"bound {explorer.bound.value:.3f} (vacuous)" in caption(explorer)


def test_initial_values_are_kept_whatever_the_range_of_the_sliders() -> None:
    explorer = make(num_samples=5_000_000, delta=0.9, sigma=0.04, alpha=0.05)
    assert explorer.bound.terms["num_samples"] == 5_000_000
    assert explorer.delta.value == pytest.approx(0.9)
    assert explorer.alpha.value == 0.05
    assert explorer.sigma.value == 0.05, "the nearest of the grid"
    assert make(num_samples=2).bound.terms["num_samples"] == 2


def test_the_page_has_one_stop_per_sigma(explorer: BoundExplorer) -> None:
    page = ExplorerPage(explorer.to_html())
    assert page.values == ["0.0125", "0.025", "0.05", "0.1"]
    assert page.stops[page.start]["alt"] == explorer.alt
    assert "N 1000" in page.text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_samples": 1}, ValueError, "num_samples must be at least 2"),
        ({"num_samples": 10**400}, ValueError, "num_samples must be at most"),
        ({"num_samples": 0.5}, TypeError, "num_samples must be an integer"),
        ({"delta": 0.0}, ValueError, r"delta must lie in \(0, 1\)"),
        ({"delta": 1.0}, ValueError, r"delta must lie in \(0, 1\)"),
        ({"sigma": 0.2}, ValueError, "sigma must lie in"),
        ({"sigmas": (0.0, 0.1, 0.2, 0.3)}, ValueError, "sigmas must lie in"),
        ({"sigmas": (0.1, 0.05, 0.2, 0.3)}, ValueError, "ascending"),
        ({"sigmas": (0.1,), "losses": (0.1,)}, ValueError, "at least two"),
        ({"sigmas": (0.1, 0.2, 0.3, 1e200)}, ValueError, "sigmas must have squares that are positive numbers"),
        ({"sigmas": (1e-200, 0.1, 0.2, 0.3)}, ValueError, "sigmas must have squares that are positive numbers"),
        ({"spectrum": [1e300, 1.0], "beta": 1e300}, ValueError, "the divergence overflows"),
        ({"sigmas": 0.1}, TypeError, "sigmas must be a sequence"),
        ({"losses": (0.1, 0.2)}, ValueError, "one loss for each of the 4 sigmas, got 2"),
        ({"losses": (0.1, 0.2, 0.3, 1.4)}, ValueError, "losses must lie in"),
        ({"alpha": 0.0}, ValueError, "alpha must lie in"),
        ({"alpha": 5.0}, ValueError, "alpha must lie in"),
        ({"beta": -1.0}, ValueError, "beta must lie in"),
        ({"num_draws": 0}, ValueError, "num_draws must be at least 1"),
        ({"squared_distance": math.nan}, ValueError, "squared_distance must be finite"),
        ({"trivial_value": 0.0}, ValueError, "trivial_value must lie in"),
        ({"spectrum": [0.0, -1.0]}, ValueError, "no positive eigenvalue"),
    ],
)
def test_messages(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**arguments)


@pytest.mark.parametrize("name", ["num_samples", "delta", "alpha"])
def test_a_control_that_is_not_a_number_is_named(explorer: BoundExplorer, name: str) -> None:
    control = getattr(explorer, name)
    before = control.value
    with pytest.raises(ValueError, match=f"{control.description} must be finite, got nan"):
        control.value = math.nan
    assert f"{control.description} must be finite" in explorer.status.value
    control.value = before
    assert explorer.status.value == ""
