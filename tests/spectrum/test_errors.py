import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from renyi_lab._utils.estimate import Estimate
from renyi_lab.operators import matrix_with_spectrum
from renyi_lab.spectrum import QuadratureRule, Spectrum, estimate_spectrum, exact_spectrum
from renyi_lab.spectrum._errors import (
    INFLATION,
    Sampling,
    extrapolation,
    remark,
    rounding_error,
    sampling_error,
    truncation_error,
)

MATRIX = matrix_with_spectrum(np.concatenate([np.linspace(-0.2, 1, 380), np.geomspace(2, 100, 20)]))


@pytest.fixture(scope="module")
def estimated():
    return estimate_spectrum(MATRIX, num_matvecs=160)


def entropy(rule, alpha):
    shares = np.abs(rule.nodes) / (rule.weights @ np.abs(rule.nodes))
    return math.log(rule.weights @ shares**alpha) / (1 - alpha)


def total(rule, f):
    return rule.weights @ f(rule.nodes)


def sampling(rule, **changes):
    """A model of errors in which nothing was sampled, but for the given parts."""
    size = len(rule.nodes)
    parts = {
        "polynomials": np.ones((1, size)),
        "fit": np.full(size, 1 / size),
        "spread": np.zeros(size),
        "shrink": np.ones(1),
        "covariance": np.zeros((1, 1)),
        "levels": (rule,) * 4,
        "half": rule,
        "last": rule,
        "eps": 0.0,
        "noise": 0.0,
        "repeated": False,
        "num_steps": 100,
        "top_error": 0.0,
    }
    return Sampling(**parts | changes)


# ---------------------------------------------------------------- what a value adds to the sum over the nodes


@pytest.mark.parametrize("f", [np.abs, lambda x: np.log1p(np.abs(x)), lambda x: np.abs(x) ** 1.5])
def test_trace_of_adds_the_extrapolation_for_a_kink(estimated, f):
    full, half = estimated.sampling.levels[:2]
    added = estimated.trace_of(f).value - total(estimated, f)
    assert added == pytest.approx((total(full, f) - total(half, f)) / (2**1.5 - 1), rel=1e-6)
    assert abs(added) > 1e-6  # the comparison is not one of zeros


@pytest.mark.parametrize(("alpha", "divisor"), [(0.25, 2**0.75 - 1), (0.5, 1.0), (1.5, 2**1.5 - 1), (3, 2**1.5 - 1)])
def test_entropy_adds_the_extrapolation_for_the_cusp_of_its_order(estimated, alpha, divisor):
    full, half = estimated.sampling.levels[:2]
    added = estimated.renyi_entropy(alpha).value - entropy(estimated, alpha)
    assert added == pytest.approx((entropy(full, alpha) - entropy(half, alpha)) / divisor, rel=1e-6)
    assert abs(added) > 1e-7


def test_nothing_is_added_to_polynomials_of_low_degree(estimated):
    for f in (np.ones_like, lambda x: x, np.square, lambda x: x**3):
        assert estimated.trace_of(f).value == pytest.approx(total(estimated, f), rel=1e-7)


def test_nothing_is_added_for_an_exact_spectrum():
    exact = exact_spectrum(MATRIX)
    assert exact.trace_of(np.abs).value == exact.weights @ np.abs(exact.nodes)
    assert exact.renyi_entropy(1.5).value == pytest.approx(entropy(exact, 1.5), abs=1e-12)


def test_nothing_is_added_after_few_steps():
    short = estimate_spectrum(MATRIX, num_matvecs=60)
    assert short.sampling.num_steps < 60
    assert short.trace_of(np.abs).value == pytest.approx(total(short, np.abs), rel=1e-12)
    assert short.trace_of(np.abs).truncation_error > 0


@pytest.mark.parametrize("cusp", [0.3, 0.5, 1.0, 2.0])
def test_extrapolation_removes_the_leading_error_term(cusp):
    def value(steps):
        return 7.0 + 3.0 * steps ** -(min(cusp, 1) + 0.5)

    assert value(40) + extrapolation(value(40), value(20), cusp) == pytest.approx(7, rel=1e-14)


# ---------------------------------------------------------------- how large the standard error is


def test_sampling_error_is_that_of_deep_and_shallow_probes():
    """Four eigenvalues, one of which is counted; a deep probe on the others, and shallow ones for two polynomials."""
    rule = QuadratureRule(np.array([1.0, 2.0, 3.0, 9.0]), np.ones(4), 4)
    polynomials = np.array([[1.0, 1, 1, 0], [-(1.5**0.5), 0, 1.5**0.5, 0]])  # orthonormal in the mean over three nodes
    model = sampling(
        rule,
        polynomials=polynomials,
        fit=np.array([1.0, 1, 1, 0]) / 3,
        spread=np.array([2.0, 2, 2, 0]),
        shrink=np.array([1.0, 0.5]),
        covariance=np.diag([0.0, 0.25]),
    )
    coefficient = 6**0.5  # of φ = 3·(x − 2) on the three nodes; the counted one does not matter
    expected = 2 * 3 * (coefficient / 2) ** 2 + 0.25 * coefficient**2
    found = sampling_error(np.array([-3.0, 0.0, 3.0, 50.0]), model)
    assert found == pytest.approx(math.sqrt(INFLATION * expected), rel=1e-12)
    assert sampling_error(np.array([5.0, 5, 5, -7]), model) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("cusp", "levels", "expected"),
    [
        (1.0, [7.0, 5.0, 5.0, 5.0], 2 / (2**1.5 - 1)),
        (1.0, [7.0, 7.0, 1.0, 1.0], 6 / (2**1.5 - 1) / 2**1.5),
        (1.0, [7.0, 7.0, 7.0, 1.0], 0.0),
        (0.5, [7.0, 7.0, 7.0, 1.0], 6 / 4),
        (0.25, [7.0, 6.0, 6.0, 6.5], 1 / (2**0.75 - 1)),
    ],
)
def test_truncation_error_is_the_largest_of_the_last_extrapolations(cusp, levels, expected):
    assert truncation_error(levels, cusp) == pytest.approx(expected)


def test_rounding_error_is_a_share_of_what_small_nodes_contribute():
    def trace(rule):
        return float(rule.weights @ rule.nodes)

    rule = QuadratureRule(np.array([1e-9, 1.0]), np.array([1e6, 1.0]), 1_000_001)
    assert rounding_error(trace, rule, 1e-8) == pytest.approx(0.75e-3)
    assert rounding_error(trace, rule, 1e-12) == 0
    zeros = QuadratureRule(np.array([0.0, 1.0]), np.array([1e6, 1.0]), 1_000_001)
    assert rounding_error(trace, zeros, 1e-8) == 0
    assert rounding_error(trace, zeros, 1e-8, noise=2e-9) == pytest.approx(1.5e-3)
    assert rounding_error(lambda r: float(r.weights @ np.log(r.nodes)), rule, 1e-8) == math.inf


def test_exact_spectrum_in_single_precision_knows_what_rounding_hides():
    factor = torch.randn(100, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    single, double = (exact_spectrum((factor @ factor.T).to(dtype)) for dtype in (torch.float32, torch.float64))
    for alpha in (0.1, 0.25):
        entropy, truth = single.renyi_entropy(alpha), double.renyi_entropy(alpha)
        assert 0.5 * entropy.standard_error < abs(entropy.value - truth.value) < 3 * entropy.standard_error
        assert entropy.standard_error == entropy.rounding_error
    assert single.renyi_entropy(2).standard_error < 1e-6
    assert Spectrum.from_eigenvalues(single.nodes).renyi_entropy(0.1).standard_error == 0


def test_signed_normalisation_needs_a_positive_trace_of_every_rule():
    good, bad = Spectrum.from_eigenvalues([-1.0, 2.0]), Spectrum.from_eigenvalues([-2.0, 1.0])
    spectrum = replace(good, num_matvecs=200, sampling=sampling(good, levels=(good, bad, bad, bad)))
    with pytest.raises(ValueError, match=r"too uncertain .* larger num_matvecs"):
        spectrum.renyi_entropy(2, normalization="signed")


@pytest.mark.parametrize("side", [-1, 1])
def test_standard_error_is_continuous_across_order_one(estimated, side):
    at_one = estimated.renyi_entropy(1).standard_error
    for distance in (1e-14, 1e-12, 1e-9, 1e-5):
        near = estimated.renyi_entropy(1 + side * distance).standard_error
        assert near == pytest.approx(at_one, rel=1e-3)


def test_constant_functions_have_no_sampling_error(estimated):
    dimension = estimated.trace_of(np.ones_like)
    assert dimension.value == pytest.approx(400, rel=1e-12)
    assert dimension.standard_error < 1e-5


def test_one_lanczos_step_and_order_zero_have_an_infinite_standard_error():
    line = torch.diag(torch.linspace(-1, 2, 50, dtype=torch.float64))
    one = estimate_spectrum(line, num_matvecs=1)
    assert one.trace.standard_error == estimate_spectrum(line, num_matvecs=3).trace.standard_error == np.inf
    assert estimate_spectrum(line, num_matvecs=4).trace.standard_error < np.inf
    with pytest.warns(UserWarning, match="too few for a reliable standard error"):
        assert one.renyi_entropy(1.5).standard_error == np.inf
    enough = estimate_spectrum(torch.diag(torch.linspace(0, 1, 500, dtype=torch.float64)), num_matvecs=200)
    for normalization in ("absolute", "signed"):
        with pytest.warns(UserWarning, match="only an upper bound"):
            bound = enough.renyi_entropy(0, normalization=normalization)
        assert (bound.value, bound.standard_error) == (np.log(500), np.inf)


@pytest.mark.parametrize(
    ("alpha", "errors", "num_steps", "message"),
    [
        (0, (0.0, 0.0, 0.0), 1000, "only an upper bound"),
        (2, (0.01, 0.0, 0.0), 7, "7 Lanczos steps are too few .* use num_matvecs=8 or more"),
        (2, (0.05, 0.05, 0.05), 8, "^$"),
        (1.5, (0.2, 0.1, 0.1), 30, r"order 1\.5 has a large standard error, 0\.24 nats: use more products than 77"),
        (0.5, (0.1, 0.2, 0.1), 30, "the bulk of eigenvalues near zero is not resolved; use more products than 77"),
        (0.1, (0.1, 0.1, 0.2), 30, "not told from rounding errors; use double precision"),
    ],
)
def test_remark_names_the_largest_part_of_a_large_error(alpha, errors, num_steps, message):
    estimate = Estimate(3.0, math.hypot(*errors), 77, *errors[1:])
    model = sampling(Spectrum.from_eigenvalues([1.0]), num_steps=num_steps)
    assert re.search(message, remark(alpha, estimate, model))
    assert remark(alpha, estimate, None) == ""


@pytest.mark.parametrize("method", ["renyi_entropy", "renyi_sharpness", "effective_number"])
def test_the_remark_is_a_warning_that_points_at_the_caller(method):
    spectrum = estimate_spectrum(torch.diag(torch.linspace(-1, 1, 50, dtype=torch.float64)), num_matvecs=6)
    with pytest.warns(UserWarning, match="6 Lanczos steps are too few") as caught:
        getattr(spectrum, method)(0.5)
    assert [warning.filename for warning in caught] == [__file__]


def test_report_takes_one_order_or_several_and_separates_the_parts_of_the_error():
    values = torch.cat([torch.linspace(0.1, 1, 1000), torch.linspace(1e-9, 1e-8, 1000)])  # single precision
    spectrum = estimate_spectrum(torch.diag(values), num_matvecs=400)
    table = spectrum.report((0.1, 0.5, 1.0, 2.0))
    assert table.index.tolist() == [0.1, 0.5, 1.0, 2.0]
    parts = table[["sampling_error", "truncation_error", "rounding_error"]]
    np.testing.assert_allclose((parts**2).sum(axis=1), table["standard_error"] ** 2)
    assert "rounding errors" in table.loc[0.1, "remark"]
    assert (table["remark"][1:] == "").all()
    assert not table["repeated"].any()
    assert table.loc[2.0, "entropy"] == spectrum.renyi_entropy(2.0).value
    assert spectrum.report().index.tolist() == [0.5, 1.0, 1.5, 2.0]
    assert len(spectrum.report(2.0)) == 1


def test_report_says_that_eigenvalues_are_repeated():
    values = torch.arange(1, 301, dtype=torch.float64).repeat_interleave(10) ** -1.5
    assert estimate_spectrum(torch.diag(values), num_matvecs=100).report()["repeated"].all()
