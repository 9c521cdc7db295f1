import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from renyi_lab.operators import matrix_with_spectrum
from renyi_lab.spectrum import Spectrum, estimate_spectrum, exact_spectrum
from renyi_lab.spectrum._errors import Sampling, bias_remark, extrapolation, sampling_variance, truncation_error

MATRIX = matrix_with_spectrum(np.concatenate([np.linspace(-0.2, 1, 380), np.geomspace(2, 100, 20)]))


@pytest.fixture(scope="module")
def estimated():
    return estimate_spectrum(MATRIX, num_matvecs=160)


def entropy(rule, alpha):
    shares = np.abs(rule.nodes) / (rule.weights @ np.abs(rule.nodes))
    return math.log(rule.weights @ shares**alpha) / (1 - alpha)


# ---------------------------------------------------------------- what a value adds to the sum over the nodes


@pytest.mark.parametrize("f", [np.abs, lambda x: np.log1p(np.abs(x)), lambda x: np.abs(x) ** 1.5])
def test_trace_of_adds_a_third_of_the_change_since_half_the_steps(estimated, f):
    sampling = estimated.sampling
    change = sampling.plain.weights @ f(sampling.plain.nodes) - (
        sampling.plain_earlier.weights @ f(sampling.plain_earlier.nodes)
    )
    added = estimated.trace_of(f).value - estimated.weights @ f(estimated.nodes)
    assert added == pytest.approx(change / 3, rel=1e-6)
    assert abs(added) > 1e-6  # the comparison is not one of zeros


@pytest.mark.parametrize(("alpha", "divisor"), [(0.25, 2**1.25 - 1), (0.5, 2**1.5 - 1), (1.5, 3), (3, 3)])
@pytest.mark.filterwarnings("ignore:.*products in .* Lanczos steps:UserWarning")
def test_entropy_adds_the_extrapolation_for_the_cusp_of_its_order(estimated, alpha, divisor):
    change = entropy(estimated.sampling.plain, alpha) - entropy(estimated.sampling.plain_earlier, alpha)
    added = estimated.renyi_entropy(alpha).value - entropy(estimated, alpha)
    assert added == pytest.approx(change / divisor, rel=1e-6)
    assert abs(added) > 1e-6


def test_nothing_is_added_to_polynomials_of_low_degree(estimated):
    for f in (np.ones_like, lambda x: x, np.square, lambda x: x**3):
        total = estimated.weights @ f(estimated.nodes)
        assert estimated.trace_of(f).value == pytest.approx(total, rel=1e-9)


def test_nothing_is_added_for_an_exact_spectrum():
    exact = exact_spectrum(MATRIX)
    assert exact.trace_of(np.abs).value == exact.weights @ np.abs(exact.nodes)
    assert exact.renyi_entropy(1.5).value == pytest.approx(entropy(exact, 1.5), abs=1e-12)


@pytest.mark.parametrize("cusp", [0.3, 0.5, 1.0, 2.0])
def test_extrapolation_removes_the_leading_error_term(cusp):
    def value(steps):
        return 7.0 + 3.0 * steps ** -(1 + min(cusp, 1))

    assert value(40) + extrapolation(value(40), value(20), cusp) == pytest.approx(7, rel=1e-14)


# ---------------------------------------------------------------- how large the standard error is


def test_sampling_variance_is_that_of_a_probe_uniform_on_the_sphere():
    angles = 2 * np.pi * np.arange(16) / 16  # exact for trigonometric polynomials of this degree
    phi = np.array([5.0, -2.0])
    quadratic_forms = 2 * (phi[0] * np.cos(angles) ** 2 + phi[1] * np.sin(angles) ** 2)
    assert sampling_variance(phi, np.ones(2), 1) == pytest.approx(np.var(quadratic_forms), rel=1e-12)
    assert sampling_variance(phi, np.ones(2), 4) == pytest.approx(np.var(quadratic_forms) / 4, rel=1e-12)
    assert sampling_variance(np.array([5.0]), np.array([300.0]), 1) == pytest.approx(0, abs=1e-9)


def test_truncation_error_is_the_stated_share_of_oscillation_and_extrapolation():
    assert truncation_error([1.0, 3.0], 0.0) == 0.5
    assert truncation_error([2.0, 2.0], -4.0) == 3.0
    assert truncation_error([1.0, 3.0], 4.0) == pytest.approx(math.sqrt(0.25 + 9))


def test_signed_normalisation_needs_a_positive_trace_of_every_rule():
    good, bad = Spectrum.from_eigenvalues([-1.0, 2.0]), Spectrum.from_eigenvalues([-2.0, 1.0])
    spectrum = replace(good, num_matvecs=200, sampling=Sampling(np.ones(2, bool), 1, (good,), bad, bad))
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
    one = estimate_spectrum(torch.diag(torch.linspace(-1, 2, 50, dtype=torch.float64)), num_matvecs=1)
    assert one.trace.standard_error == np.inf
    with pytest.warns(UserWarning, match="too few for a reliable standard error"):
        assert one.renyi_entropy(1.5).standard_error == np.inf
    enough = estimate_spectrum(torch.diag(torch.linspace(0, 1, 500, dtype=torch.float64)), num_matvecs=200)
    with pytest.warns(UserWarning, match="only an upper bound"):
        bound = enough.renyi_entropy(0)
    assert (bound.value, bound.standard_error) == (np.log(500), np.inf)


@pytest.mark.parametrize(
    ("alpha", "num_matvecs", "num_probes", "remark"),
    [
        (0, 10_000, 10, "only an upper bound"),
        (2, 21, 3, "7 Lanczos steps are too few .* use num_matvecs=24 or more"),
        (2, 24, 3, "^$"),
        (1, 24, 3, "^$"),
        (0.9, 149, 1, "149 products in 149 Lanczos steps are few for alpha=0.9 < 1: .* use num_matvecs=298 or more"),
        (0.9, 150, 6, "^$"),
        (0.9, 168, 7, "168 products in 24 Lanczos steps are few"),
        (0.5, 150, 1, "^$"),
        (0.49, 150, 1, "are few for alpha=0.49 < 1: .* use num_matvecs=400 or more"),
        (0.49, 400, 8, "^$"),
    ],
)
def test_remark_tells_when_the_products_are_too_few(alpha, num_matvecs, num_probes, remark):
    rule = Spectrum.from_eigenvalues([1.0])
    sampling = Sampling(np.array([True]), num_probes, (rule,), rule, rule)
    found = bias_remark(alpha, sampling, num_matvecs)
    assert re.search(remark, found), found
    assert bias_remark(alpha, None, num_matvecs) == ""


@pytest.mark.parametrize("method", ["renyi_entropy", "renyi_sharpness", "effective_number"])
def test_the_remark_is_a_warning_that_points_at_the_caller(method):
    spectrum = estimate_spectrum(torch.diag(torch.linspace(-1, 1, 50, dtype=torch.float64)), num_matvecs=8)
    with pytest.warns(UserWarning, match=r"few for alpha=0\.5") as caught:
        getattr(spectrum, method)(0.5)
    assert [warning.filename for warning in caught] == [__file__]


def test_report_takes_one_order_or_none_and_separates_the_parts_of_the_error():
    spectrum = estimate_spectrum(torch.diag(torch.linspace(-1, 1, 500, dtype=torch.float64)), num_matvecs=100)
    table = spectrum.report()
    assert table.index.tolist() == [0.5, 1.0, 1.5, 2.0]
    squares = table["sampling_error"] ** 2 + table["truncation_error"] ** 2
    np.testing.assert_allclose(squares, table["standard_error"] ** 2)
    assert "few for alpha=0.5" in table.loc[0.5, "remark"]
    assert (table["remark"][1:] == "").all()
    assert table.loc[2.0, "entropy"] == spectrum.renyi_entropy(2.0).value
    assert len(spectrum.report(2.0)) == 1
    assert spectrum.report([]).empty
