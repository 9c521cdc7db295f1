"""The rule for α on synthetic spectra of known profile."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.typing import NDArray

from renyi_lab import AlphaChoice, Spectrum, choose_alpha, estimate_spectrum
from renyi_lab.spectrum import QuadratureRule

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


@pytest.mark.parametrize(
    ("num_top", "num_middle", "separation"),
    [
        *((top, middle, d) for top, middle in ((9, 20), (9, 90), (40, 8), (100, 300)) for d in (0.5, 1.0, 1.5, 2.0)),
        (3, 60, 1.5),  # three eigenvalues need a wider dip
        (3, 60, 2.0),
    ],
)
def test_middle_group_clearly_below_the_top_gives_one_half(num_top: int, num_middle: int, separation: float) -> None:
    seen = choose_alpha(Spectrum.from_eigenvalues(three_groups(separation, num_top, num_middle)))
    assert (seen.alpha, seen.profile) == (0.5, "multi-cluster")
    assert (seen.evidence["num_top"], seen.evidence["num_middle"]) == (num_top, num_middle)
    assert seen.evidence["bulk_fraction"] == pytest.approx(1 - (num_top + num_middle) / DIM)
    centres = [np.log10(low * high) / 2 for low, high in seen.dips]
    assert -0.3 > centres[0] > -0.3 - separation
    assert centres[1] < -0.7 - separation
    assert seen.evidence["depth"] >= seen.evidence["second_depth"] >= 1.5


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


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_dips_of_huge_and_tiny_spectra_are_printed_where_they_are(scale: float) -> None:
    expected = choose_alpha(Spectrum.from_eigenvalues(three_groups(1.0, 9, 60)))
    seen = choose_alpha(Spectrum.from_eigenvalues(scale * three_groups(1.0, 9, 60)))
    assert seen.evidence == pytest.approx(expected.evidence)
    pattern = re.compile(r"λ\| = (\S+) and ([^\s,]+),")
    (wanted,), (found,) = (pattern.findall(repr(choice)) for choice in (expected, seen))
    assert [float(place) for place in found] == pytest.approx([scale * float(place) for place in wanted], rel=0.1)


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


def normal(rng: np.random.Generator, count: int, centre: float, deviation: float) -> NDArray[np.float64]:
    return np.asarray(10 ** rng.normal(centre, deviation, count))


def outliers(rng: np.random.Generator, count: int, spread: float) -> NDArray[np.float64]:
    """Over a bulk around 1e-3, ``count`` values scattered over ``spread`` decades from 0.01 on."""
    return np.concatenate([normal(rng, 2000, -3, 0.3), 10 ** rng.uniform(-2, spread - 2, count)])


def clusters(
    rng: np.random.Generator, num_top: int, num_middle: int, separation: float, deviation: float
) -> NDArray[np.float64]:
    return np.concatenate(
        [
            normal(rng, num_top, 0, deviation),
            normal(rng, num_middle, -separation, deviation),
            normal(rng, 2000, -2 * separation - 0.5, deviation),
        ]
    )


def share_of_one_half(family: Callable[[np.random.Generator], NDArray[np.float64]], draws: int = 40) -> float:
    return float(np.mean([choice(family(np.random.default_rng(seed))) == 0.5 for seed in range(draws)]))


@pytest.mark.parametrize("bulk_deviation", [0.3, 0.4])
@pytest.mark.parametrize("top_deviation", [0.0, 0.1])
def test_three_clear_clusters_of_density_are_multi_cluster(bulk_deviation: float, top_deviation: float) -> None:
    share = share_of_one_half(
        lambda rng: np.concatenate(
            [
                normal(rng, 10, 0, top_deviation),
                normal(rng, 100, -1.2, 0.2),
                normal(rng, 4890, -3, bulk_deviation),
            ]
        ),
        draws=20,
    )
    assert share >= 0.95


SMOOTH = {
    **{f"tail {a}": lambda rng, a=a: rng.pareto(a, 1000) + 1 for a in (0.5, 1.0, 2.0, 3.0)},
    **{
        f"tail {a} over zeros": lambda rng, a=a: np.concatenate([rng.pareto(a, 100) + 1, np.zeros(900)])
        for a in (0.5, 1.0, 2.0, 3.0)
    },
    **{f"lognormal {s}": lambda rng, s=s: normal(rng, 2000, 0, s) for s in (0.3, 0.8, 1.5)},
    "Laplace": lambda rng: rng.laplace(size=2000),
    "normal": lambda rng: rng.normal(size=2000),
    "Marchenko-Pastur": lambda rng: np.linalg.svd(rng.standard_normal((150, 300)), compute_uv=False) ** 2,
    "two groups": lambda rng: np.concatenate([normal(rng, 10, 0, 0.2), normal(rng, 1500, -3, 0.4)]),
    **{f"{k} outliers": lambda rng, k=k: outliers(rng, k, 1.5) for k in (5, 10, 20)},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", SMOOTH)
def test_smooth_families_are_rarely_multi_cluster(family: str) -> None:
    assert share_of_one_half(SMOOTH[family]) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_top", "num_middle", "separation", "deviation", "least", "most"),
    [
        (10, 100, 1.5, 0.1, 0.95, 1.0),
        (50, 200, 1.0, 0.1, 0.95, 1.0),
        (50, 100, 1.5, 0.2, 0.95, 1.0),
        (5, 10, 2.0, 0.1, 0.95, 1.0),
        (10, 100, 0.6, 0.2, 0.0, 0.3),  # three standard deviations apart: hardly a dip
        (10, 100, 1.0, 0.4, 0.0, 0.1),
    ],
)
def test_share_of_detected_clusters_by_separation_and_size(
    num_top: int, num_middle: int, separation: float, deviation: float, least: float, most: float
) -> None:
    share = share_of_one_half(lambda rng: clusters(rng, num_top, num_middle, separation, deviation))
    assert least <= share <= most


@pytest.mark.slow
def test_estimates_of_clear_clusters_agree_with_the_exact_spectrum() -> None:
    agree = []
    for seed in range(4):
        rng = np.random.default_rng(100 + seed)
        for values in (
            np.concatenate([np.ones(10), normal(rng, 100, -1.2, 0.2), normal(rng, 4890, -3, 0.3)]),
            clusters(rng, 10, 100, 1.5, 0.1),
            np.concatenate([normal(rng, 10, 0, 0.2), normal(rng, 1500, -3, 0.4)]),
            rng.pareto(1.0, 1000) + 1,
            np.repeat([10.0, 0.5, 1e-3], [20, 200, 2000]),
        ):
            estimated = estimate_spectrum(scipy.sparse.diags(values), num_matvecs=200, seed=seed)
            agree.append(choose_alpha(estimated).alpha == choice(values))
    assert np.mean(agree) >= 0.9


def test_nodes_that_stand_for_many_eigenvalues_show_no_dips() -> None:
    nodes, weights = np.array([-1e-2, 1e-3, 0.1, 0.3, 1.0]), np.array([400.0, 9596.0, 2.0, 1.0, 1.0])
    sampling = estimate_spectrum(Diagonal(decades(-5, 0, 3000)), num_matvecs=20).sampling
    assert sampling is not None
    parts = {"fit": sampling.fit[:5], "spread": sampling.spread[:5], "polynomials": sampling.polynomials[:, :5]}
    last = QuadratureRule(nodes, weights, 10_000)
    moved = QuadratureRule(nodes * 1.1, weights, 10_000)
    unresolved = Spectrum(nodes, weights, 10_000, 20, replace(sampling, **parts, last=last, half=moved))
    assert choose_alpha(unresolved).evidence["depth"] < 1
    assert choose_alpha(Spectrum(nodes, weights, 10_000)).evidence["depth"] > 10


def test_choice_prints_a_sentence() -> None:
    rng = np.random.default_rng(0)
    three = np.concatenate([normal(rng, 10, 0, 0.05), normal(rng, 100, -1.5, 0.1), normal(rng, 1000, -3.5, 0.2)])
    assert re.fullmatch(
        r"α = 0\.5: multi-cluster profile \(two dips in the density of log10\|λ\|, at \|λ\| = [\d.]+ and [\d.]+, at "
        r"least [\d.]+ times lower than the groups beside them: 10 top and 100 middle eigenvalues above the bulk\)\.",
        repr(choose_alpha(Spectrum.from_eigenvalues(three))),
    )
    two = choose_alpha(Spectrum.from_eigenvalues(np.concatenate([three[:10], three[110:]])))
    assert re.match(r"α = 1\.5: uniform profile \(one dip, at \|λ\| = [\d.]+, .*: 10 top eigenvalues", repr(two))
    one = choose_alpha(Spectrum.from_eigenvalues(three[110:]))
    assert "no dip in the density of log10|λ| stands out from the noise of the counts" in repr(one)
    assert not any("Uncertain" in repr(choice) for choice in (one, two))


@pytest.mark.parametrize("depth", [0.9, 1.1, 1.4, 1.6, 2.2, 2.4])
def test_choice_is_uncertain_near_the_threshold(depth: float) -> None:
    evidence = {"num_top": 3.0, "num_middle": 0.0, "bulk_fraction": 0.9, "depth": 9.0, "second_depth": depth}
    seen = AlphaChoice(1.5, "uniform", evidence, dips=((0.1, 1.0),))
    assert seen.is_uncertain == ("Uncertain" in repr(seen)) == (1 <= depth <= 2.25)


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
