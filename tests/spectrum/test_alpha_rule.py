"""The rule for α on synthetic spectra of known profile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from renyi_lab import Spectrum, choose_alpha, estimate_spectrum

DIM = 1500


class Diagonal:
    """The matrix diag(values), with cheap products."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = torch.from_numpy(values)
        self.shape = (len(values), len(values))
        self.dtype, self.device = torch.float64, torch.device("cpu")

    def __matmul__(self, v: torch.Tensor) -> torch.Tensor:
        return self.values[:, None] * v if v.ndim == 2 else self.values * v


def decades(low: float, high: float, count: int) -> NDArray[np.float64]:
    return np.geomspace(10**low, 10**high, count)


def bulk(count: int, rng: np.random.Generator, centre: float = -4.5) -> NDArray[np.float64]:
    """Values of both signs that span a decade or two."""
    return rng.choice([-1.0, 1.0], count) * 10 ** rng.normal(centre, 0.4, count)


def three_groups(separation: float, num_top: int, num_middle: int, seed: int = 0) -> NDArray[np.float64]:
    """A top within a factor 2, ``separation`` decades below it a middle within a factor 2.5, and the bulk."""
    middle = decades(-0.7 - separation, -0.3 - separation, num_middle)
    rest = bulk(DIM - num_top - num_middle, np.random.default_rng(seed), centre=-5.0 - separation / 2)
    return np.concatenate([decades(-0.3, 0.0, num_top), middle, rest])


def two_groups(num_top: int, centre: float, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return np.concatenate([decades(-0.4, 0.0, num_top), bulk(DIM - num_top, rng, centre)])


def choice(eigenvalues: NDArray[np.float64]) -> float:
    return choose_alpha(Spectrum.from_eigenvalues(eigenvalues)).alpha


@pytest.mark.parametrize("separation", [0.35, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize(("num_top", "num_middle"), [(3, 60), (9, 20), (9, 90), (40, 8), (100, 300)])
def test_middle_group_clearly_below_the_top_gives_one_half(separation: float, num_top: int, num_middle: int) -> None:
    seen = choose_alpha(Spectrum.from_eigenvalues(three_groups(separation, num_top, num_middle)))
    assert (seen.alpha, seen.profile) == (0.5, "multi-cluster")
    assert (seen.evidence["num_top"], seen.evidence["num_middle"]) == (num_top, num_middle)
    assert seen.evidence["bulk_fraction"] == pytest.approx(1 - (num_top + num_middle) / DIM)
    assert separation in (pytest.approx(seen.evidence["gap"]), pytest.approx(seen.evidence["second_gap"]))


@pytest.mark.parametrize("separation", [0.0, 0.1, 0.2, 0.25])
@pytest.mark.parametrize(("num_top", "num_middle"), [(3, 60), (9, 90), (40, 8)])
def test_no_gap_between_top_and_middle_gives_three_halves(separation: float, num_top: int, num_middle: int) -> None:
    seen = choose_alpha(Spectrum.from_eigenvalues(three_groups(separation, num_top, num_middle)))
    assert (seen.alpha, seen.profile) == (1.5, "uniform")
    assert seen.evidence["num_top"] == num_top + num_middle
    assert seen.evidence["num_middle"] == 0


def test_choice_changes_once_where_the_margin_changes_sign() -> None:
    margins = []
    for separation in np.linspace(0.05, 1.0, 39):
        seen = choose_alpha(Spectrum.from_eigenvalues(three_groups(float(separation), 9, 60)))
        assert (seen.alpha == 0.5) == (seen.evidence["margin"] >= 0)
        margins.append(seen.evidence["margin"])
    assert np.count_nonzero(np.diff(np.sign(margins))) == 1
    assert np.allclose(margins[-20:], np.linspace(0.05, 1.0, 39)[-20:] - 0.3)


@pytest.mark.parametrize("centre", [-6.0, -4.0, -3.0, -2.5])
@pytest.mark.parametrize("num_top", [2, 5, 9, 40, 200])
def test_few_large_values_over_a_bulk_give_three_halves_for_any_tail(centre: float, num_top: int) -> None:
    seen = choose_alpha(Spectrum.from_eigenvalues(two_groups(num_top, centre)))
    assert (seen.alpha, seen.profile) == (1.5, "uniform")
    assert seen.evidence["num_middle"] == 0


@pytest.mark.parametrize("num_top", [1, 2, 9])
def test_exact_zeros_are_bulk(num_top: int) -> None:
    assert choice(np.concatenate([decades(-0.3, 0, num_top), np.zeros(100)])) == 1.5
    assert choice(np.concatenate([decades(0.9, 1, 3), decades(-0.3, 0, 5), np.zeros(100)])) == 0.5


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0])
def test_power_law_is_uniform_although_its_first_values_are_far_apart(exponent: float) -> None:
    eigenvalues = np.arange(1.0, DIM + 1) ** -exponent
    assert choice(eigenvalues) == 1.5
    assert choice(np.concatenate([eigenvalues[:300], np.zeros(DIM)])) == 1.5


@pytest.mark.parametrize("ratio", [0.3, 0.1])
def test_one_or_two_outliers_above_a_continuum_do_not_make_it_multi_cluster(ratio: float) -> None:
    continuum = ratio * decades(-3.0, 0.0, 600)
    assert choice(np.concatenate([[1.0], continuum])) == 1.5
    assert choice(np.concatenate([[1.0, 0.9], continuum])) == 1.5


@pytest.mark.parametrize("tail", [0.5, 1.0, 2.0])
def test_random_power_laws_are_rarely_classified_as_clusters(tail: float) -> None:
    rng = np.random.default_rng(0)
    plain = [choice(rng.pareto(tail, 1000) + 1) for _ in range(100)]
    over_zeros = [choice(np.concatenate([rng.pareto(tail, 100) + 1, np.zeros(900)])) for _ in range(100)]
    assert plain.count(0.5) <= 3
    assert over_zeros.count(0.5) <= 10


def test_single_value_between_two_groups_neither_joins_them_nor_is_a_group() -> None:
    groups = np.concatenate([decades(-0.2, 0, 30), decades(-2.2, -2.0, 200)])
    rest = np.zeros(1000)
    assert choice(np.concatenate([groups, [0.1], rest])) == 0.5
    assert choice(np.concatenate([decades(-0.2, 0, 30), [0.1], rest])) == 1.5


def test_choice_is_invariant_to_scale_signs_and_order() -> None:
    rng = np.random.default_rng(1)
    for eigenvalues in (three_groups(0.6, 9, 40), two_groups(9, -3.0)):
        shuffled = rng.permutation(eigenvalues) * rng.choice([-1.0, 1.0], len(eigenvalues))
        expected = choose_alpha(Spectrum.from_eigenvalues(eigenvalues))
        for scale in (1e-12, 1.0, 1e9):
            seen = choose_alpha(Spectrum.from_eigenvalues(scale * shuffled))
            assert seen.alpha == expected.alpha
            assert seen.evidence == pytest.approx(expected.evidence)


@pytest.mark.slow
@pytest.mark.parametrize("num_matvecs", [70, 150])
def test_estimated_and_exact_spectrum_lead_to_the_same_choice(num_matvecs: int) -> None:
    rng = np.random.default_rng(2)
    spectra = [three_groups(separation, 9, 60) for separation in (0.0, 0.2, 0.45, 0.7, 1.2, 2.0)]
    spectra += [three_groups(1.0, 3, 200), three_groups(0.6, 30, 100), two_groups(5, -2.8), two_groups(40, -4.0)]
    spectra += [np.arange(1.0, DIM + 1) ** -exponent for exponent in (0.7, 1.0, 2.0)]
    spectra += [rng.pareto(1.0, DIM) + 1, 10 ** rng.normal(-3, 0.8, DIM), 10 ** rng.uniform(-5, 0, DIM)]
    spectra += [np.linalg.eigvalsh((lambda a: a + a.T)(rng.standard_normal((300, 300))))]
    agree = [
        choose_alpha(estimate_spectrum(Diagonal(values), num_matvecs=num_matvecs, seed=seed)).alpha == choice(values)
        for values in spectra
        for seed in range(2)
    ]
    assert np.mean(agree) >= 0.98


def test_artificial_gaps_from_too_few_products_are_not_significant() -> None:
    values = decades(-5, 0, 3000)
    estimates = [estimate_spectrum(Diagonal(values), num_matvecs=20, seed=seed) for seed in range(8)]
    assert [choose_alpha(estimate).alpha for estimate in estimates] == [1.5] * 8


def test_the_bulk_contains_the_majority_of_eigenvalues() -> None:
    seen = choose_alpha(
        Spectrum.from_eigenvalues(
            np.concatenate([decades(-0.3, 0, 5), decades(-1.5, -1.2, 100), decades(-3, -2.9, 10)])
        )
    )
    assert (seen.alpha, seen.evidence["num_top"], seen.evidence["num_middle"]) == (1.5, 5, 0)


@pytest.mark.parametrize("eigenvalues", [[2.0], [2.0, 1.0], [3.0, 3.0, 3.0], [1.0, 0.0], [1.0, 0.9, 0.1, 0.09]])
def test_too_few_values_for_three_groups_are_uniform(eigenvalues: list[float]) -> None:
    assert choice(np.array(eigenvalues)) == 1.5


def test_repr_is_one_line_with_the_evidence() -> None:
    text = repr(choose_alpha(Spectrum.from_eigenvalues([10.0, 9.0, 8.0, 0.5, 0.4, 0.3] + [1e-3] * 100)))
    assert text == (
        "AlphaChoice(alpha=0.5, profile='multi-cluster', num_top=3, num_middle=3, bulk_fraction=0.943, gap=2.48, "
        "second_gap=1.2, margin=0.904)"
    )


@pytest.mark.parametrize(
    ("spectrum", "error", "message"),
    [
        (Spectrum.from_eigenvalues(np.zeros(5)), ValueError, "all zero"),
        ([1.0, 2.0], TypeError, "from_eigenvalues"),
    ],
)
def test_errors_name_the_fix(spectrum: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        choose_alpha(spectrum)
