import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from renyi_lab._utils.estimate import Estimate
from renyi_lab.operators import matrix_with_spectrum
from renyi_lab.spectrum import (
    QuadratureRule,
    Spectrum,
    check_spectrum,
    estimate_spectrum,
    renyi_entropy,
    spectral_density,
)

properties = settings(deadline=None, derandomize=True, max_examples=60)
EIGENVALUES = [4.0, -2.0, 0.0, 1.0, 1.0]
ORDERS = [0, 0.5, 0.95, 1, 1.05, 1.5, 2, 20, math.inf]
ONES = np.ones(2)


@pytest.fixture
def spectrum():
    return Spectrum.from_eigenvalues(EIGENVALUES)


@pytest.fixture(scope="module")
def estimated():
    values = np.concatenate([np.linspace(0, 1, 380), np.geomspace(2, 100, 20)])
    return estimate_spectrum(matrix_with_spectrum(values), num_matvecs=160)


# ---------------------------------------------------------------- Spectrum


def test_eigenvalues_in_any_order_and_kind_give_the_same_spectrum():
    for values in (EIGENVALUES, np.array(EIGENVALUES), torch.tensor(EIGENVALUES, requires_grad=True), [4, -2, 0, 1, 1]):
        spectrum = Spectrum.from_eigenvalues(values)
        assert spectrum.nodes.tolist() == [-2, 0, 1, 1, 4]
        assert spectrum.weights.tolist() == [1] * 5
        assert (spectrum.dim, spectrum.is_exact, spectrum.last_rule) == (5, True, spectrum)


def test_the_eigenvalues_passed_are_copied():
    values = np.array([2.0, 1.0])
    spectrum = Spectrum.from_eigenvalues(values)
    values[:] = 7
    assert spectrum.nodes.tolist() == [1, 2]


def test_traces_follow_their_closed_forms(spectrum):
    assert float(spectrum.trace) == 4
    assert float(spectrum.trace_of(np.square)) == 22
    assert float(spectrum.trace_of(np.abs)) == 8
    assert spectrum.trace.standard_error == 0
    assert spectrum.max_eigenvalue == 4
    assert spectrum.negative_fraction == 0.25
    assert spectrum.magnitudes.tolist() == [2, 0, 1, 1, 4]


def test_weights_count_like_repeated_eigenvalues():
    weighted = Spectrum(np.array([0.5, 2.0]), np.array([3.0, 1.0]), 4)
    repeated = Spectrum.from_eigenvalues([0.5, 0.5, 0.5, 2.0])
    assert float(weighted.trace) == float(repeated.trace)
    for alpha in ORDERS:
        assert weighted.renyi_entropy(alpha).value == pytest.approx(repeated.renyi_entropy(alpha).value, abs=1e-12)


def test_nodes_without_weight_do_not_matter():
    spectrum = Spectrum(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0]), 2)
    with np.errstate(divide="ignore"):
        assert float(spectrum.trace_of(np.log)) == pytest.approx(math.log(2))
    assert spectrum.renyi_entropy(0).value == pytest.approx(math.log(2))


@pytest.mark.parametrize("alpha", ORDERS)
def test_entropy_is_that_of_the_magnitudes(spectrum, alpha):
    entropy = spectrum.renyi_entropy(alpha)
    expected = renyi_entropy(np.abs(EIGENVALUES), alpha)
    assert entropy.value == pytest.approx(expected, abs=1e-12)
    assert entropy.standard_error == 0
    assert spectrum.renyi_sharpness(alpha).value == -entropy.value
    assert spectrum.effective_number(alpha).value == pytest.approx(math.exp(expected))


@properties
@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e3), st.floats(-1e3, -1e-6)), min_size=1, max_size=30).filter(
        any
    ),
    st.one_of(st.floats(0, 30), st.just(math.inf)),
    st.floats(1e-6, 1e6),
)
def test_entropy_is_bounded_and_invariant_to_scale_and_sign(values, alpha, scale):
    entropy = Spectrum.from_eigenvalues(values).renyi_entropy(alpha).value
    assert 0 <= entropy <= math.log(len(values))
    scaled = Spectrum.from_eigenvalues(-scale * np.array(values))
    assert scaled.renyi_entropy(alpha).value == pytest.approx(entropy, abs=1e-9)


@pytest.mark.parametrize("alpha", [0, 0.5, 1 - 1e-10, 1 + 1e-10, 1.5, 3, 300])
def test_signed_and_absolute_normalisation_agree_without_negative_eigenvalues(alpha):
    spectrum = Spectrum.from_eigenvalues([0.0, 0.0, 1.0, 3.0, 50.0])
    signed, absolute = (spectrum.renyi_entropy(alpha, normalization=kind).value for kind in ("signed", "absolute"))
    assert signed == pytest.approx(absolute, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.5, 2])
def test_signed_normalisation_divides_by_the_trace(spectrum, alpha):
    expected = math.log((np.abs(EIGENVALUES) ** alpha).sum() / sum(EIGENVALUES) ** alpha) / (1 - alpha)
    assert spectrum.renyi_entropy(alpha, normalization="signed").value == pytest.approx(expected, abs=1e-12)
    assert spectrum.renyi_sharpness(alpha, normalization="signed").value == pytest.approx(-expected, abs=1e-12)


def test_report_has_one_row_per_order(spectrum):
    table = spectrum.report([0.5, 2])
    assert table.index.tolist() == [0.5, 2]
    assert table.loc[2, "entropy"] == spectrum.renyi_entropy(2).value
    assert table.loc[2, "effective_number"] == spectrum.effective_number(2).value
    assert (table["standard_error"] == 0).all()


def test_repr_tells_exact_from_estimated(spectrum, estimated):
    assert repr(spectrum) == "Spectrum(dim=5, exact, eigenvalues in [-2, 4])"
    assert "estimated from 159 products" in repr(estimated) or "estimated from 160 products" in repr(estimated)
    assert repr(QuadratureRule(ONES, ONES, 2)) == "QuadratureRule(dim=2, 2 nodes in [1, 1])"


# ---------------------------------------------------------------- Estimate


def test_estimate_shows_value_error_and_cost():
    estimate = Estimate(2.5, 0.125, 200)
    assert float(estimate) == 2.5
    assert f"{estimate:.2f}" == "2.50 ± 0.12"
    assert repr(estimate) == "Estimate(2.5 ± 0.12, 200 products)"
    assert repr(Estimate(1.0)) == "Estimate(1 ± 0)"


def test_estimated_quantities_have_error_and_cost(estimated):
    assert not estimated.is_exact
    for estimate in (estimated.trace, estimated.renyi_entropy(1.5), estimated.effective_number(2)):
        assert estimate.standard_error > 0
        assert estimate.num_matvecs == estimated.num_matvecs > 0
        assert 0 <= estimate.truncation_error <= estimate.standard_error
    entropy = estimated.renyi_entropy(1.5)
    assert estimated.renyi_sharpness(1.5).standard_error == entropy.standard_error
    number = estimated.effective_number(1.5)
    for part in ("standard_error", "sampling_error", "truncation_error", "rounding_error"):
        assert getattr(number, part) == pytest.approx(number.value * getattr(entropy, part))


def test_a_function_that_writes_into_its_argument_leaves_the_spectrum_alone(estimated):
    nodes = estimated.nodes.copy()
    doubled = estimated.trace_of(lambda x: np.multiply(x, 2, out=x))
    np.testing.assert_array_equal(estimated.nodes, nodes)
    assert doubled.value == pytest.approx(2 * estimated.trace.value)


def test_last_rule_has_converged_eigenvalues_once_each(estimated):
    rule = estimated.last_rule
    nearest = np.abs(rule.nodes - 100).argmin()
    assert rule.nodes[nearest] == pytest.approx(100, rel=1e-9)
    assert rule.weights[nearest] == pytest.approx(1)


# ---------------------------------------------------------------- density


def test_density_is_the_sum_of_gaussians(spectrum):
    grid, sigma = np.array([-2.0, 0.3, 1.0]), 0.7
    gaussians = np.exp(-0.5 * ((grid[:, None] - EIGENVALUES) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(spectrum.density(grid, sigma), gaussians.mean(1), rtol=1e-12)


@pytest.mark.parametrize("bandwidth", [None, 0.5])
def test_density_integrates_to_one(spectrum, bandwidth):
    grid = np.linspace(-8, 10, 20_001)
    assert trapezoid(spectrum.density(grid, bandwidth), grid) == pytest.approx(1, abs=1e-6)


def test_default_bandwidth_is_a_hundredth_of_the_range_and_a_tenth_of_a_decade():
    grid = np.linspace(-1, 7, 1001)
    np.testing.assert_array_equal(
        spectral_density([0, 6], [1, 1], grid), spectral_density([0, 6], [1, 1], grid, bandwidth=0.06)
    )
    positive = np.geomspace(0.1, 10, 100)
    np.testing.assert_array_equal(
        spectral_density([1.0], [1], positive, scale="log"),
        spectral_density([1.0], [1], positive, bandwidth=0.1, scale="log"),
    )


def test_logarithmic_density_integrates_to_the_share_of_non_zero_eigenvalues(spectrum):
    decades = np.linspace(-3, 3, 6001)
    density = spectrum.density(10**decades, scale="log")
    assert trapezoid(density, decades) == pytest.approx(4 / 5, abs=1e-9)
    peak = decades[density.argmax()]
    assert peak == pytest.approx(0, abs=5e-3)  # two of five at |λ| = 1


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-9])
def test_density_of_a_single_eigenvalue_peaks_there(value):
    grid = value + np.array([-1, 0, 1]) * (abs(value) or 1.0)
    assert Spectrum.from_eigenvalues([value]).density(grid).argmax() == 1


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: Spectrum(np.array([]), np.array([]), 0), ValueError, "at least one entry"),
        (lambda s: Spectrum(ONES, np.ones(3), 3), ValueError, r"got \(2,\) and \(3,\)"),
        (lambda s: Spectrum(np.ones((2, 2)), np.ones((2, 2)), 4), ValueError, "vectors of one length"),
        (lambda s: Spectrum(np.array([1.0, np.nan]), ONES, 2), ValueError, "finite"),
        (lambda s: Spectrum(ONES, np.array([1.0, np.inf]), 2), ValueError, "finite"),
        (lambda s: Spectrum(ONES, np.array([3.0, -1.0]), 2), ValueError, "weights must be non-negative, got -1"),
        (lambda s: Spectrum(ONES, ONES, 3), ValueError, "weights must sum to dim=3, got 2"),
        (lambda s: Spectrum(np.array([2.0, 1.0]), ONES, 2), ValueError, "nodes must ascend; sort them"),
        (lambda s: Spectrum.from_eigenvalues([]), ValueError, "at least one entry"),
        (lambda s: Spectrum.from_eigenvalues([1.0, np.nan]), ValueError, "NaN or infinity; did the model diverge"),
        (lambda s: Spectrum.from_eigenvalues([1j]), TypeError, "eigenvalues must be real; use eigvalsh"),
        (lambda s: s.renyi_entropy(-1), ValueError, "alpha must .*got -1"),
        (lambda s: s.renyi_entropy("1"), TypeError, "alpha must be a real number"),
        (lambda s: s.renyi_entropy(2, normalization="l1"), ValueError, "normalization must be one of"),
        (lambda s: s.renyi_entropy(1, normalization="signed"), ValueError, "finite alpha other than 1, got 1"),
        (lambda s: s.renyi_entropy(math.inf, normalization="signed"), ValueError, "finite alpha other than 1"),
        (lambda s: Spectrum.from_eigenvalues([0.0]).renyi_entropy(2), ValueError, "the spectrum is all zero"),
        (
            lambda s: Spectrum.from_eigenvalues([-1.0]).renyi_entropy(2, normalization="signed"),
            ValueError,
            'needs a positive trace, got -1; use "absolute"',
        ),
        (lambda s: s.trace_of(np.sum), ValueError, "f must map .* values to as many"),
        (lambda s: s.trace_of(lambda x: x * np.nan), ValueError, "f is not finite on the spectrum"),
        (lambda s: s.density([1.0], bandwidth=0), ValueError, "bandwidth must .*got 0"),
        (lambda s: s.density([1.0], bandwidth=math.nan), ValueError, "bandwidth must be finite"),
        (lambda s: s.density([1.0], scale="loglog"), ValueError, "scale must be one of 'linear', 'log'"),
        (lambda s: s.density([0.0, 1.0], scale="log"), ValueError, "grid must be positive"),
        (lambda s: s.density(1.0), ValueError, "grid must be a vector"),
        (lambda s: s.density([np.nan]), ValueError, "grid must be finite"),
        (lambda s: check_spectrum([1.0]), TypeError, r"must be a Spectrum, got list; use estimate_spectrum\(H\), or"),
    ],
)
def test_errors_name_the_argument_and_the_fix(spectrum, call, error, message):
    with pytest.raises(error, match=message):
        call(spectrum)


# ---------------------------------------------------------------- several orders

SEVERAL = [0.5, 1, 2, math.inf]


@pytest.mark.parametrize("method", ["renyi_entropy", "renyi_sharpness", "effective_number"])
@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, iter])
def test_several_orders_give_a_list_of_what_each_gives(spectrum, estimated, method, kind):
    for each in (spectrum, estimated):
        function = getattr(each, method)
        assert function(kind(SEVERAL)) == [function(alpha) for alpha in SEVERAL]
        assert function([1]) == [function(1)]


def test_several_orders_of_the_signed_normalisation(spectrum):
    for method in (spectrum.renyi_entropy, spectrum.renyi_sharpness):
        assert method([2, 3], normalization="signed") == [method(a, normalization="signed") for a in (2, 3)]


@pytest.mark.parametrize("method", ["renyi_entropy", "renyi_sharpness", "effective_number", "report"])
@pytest.mark.parametrize(
    ("orders", "error", "message"),
    [
        ([], ValueError, r"{} is empty; give at least one order, such as \[0.5, 1, 2\]"),
        (np.array([]), ValueError, "{} is empty"),
        ([1, [2, 3]], TypeError, r"{}\[1\] must be a real number, got \[2, 3\] of type list"),
        (np.ones((1, 2)), ValueError, r"{} must be a number or a vector, got shape \(1, 2\); use {}.ravel\(\)"),
        ([0.5, 1, math.nan], ValueError, r"{}\[2\] must be a number, got nan"),
        ((0.5, -1), ValueError, r"{}\[1\] must lie in \[0, inf\], got -1"),
        ([1, "2"], TypeError, r"{}\[1\] must be a real number, got '2' of type str"),
        ([True], TypeError, r"{}\[0\] must be a real number, got True"),
        ({1, 2}, TypeError, "{} must be a number or a sequence of numbers, got a set; use sorted"),
        ("12", TypeError, "{} must be a real number, got '12' of type str"),
        (None, TypeError, "{} must be a real number, got None"),
        (-1, ValueError, "{} must lie in"),
    ],
)
def test_wrong_orders_are_named(spectrum, method, orders, error, message):
    name = "alphas" if method == "report" else "alpha"
    with pytest.raises(error, match=message.replace("{}", name)):
        getattr(spectrum, method)(orders)


@pytest.mark.parametrize("method", ["renyi_entropy", "renyi_sharpness", "effective_number"])
@pytest.mark.parametrize("orders", [0, [0], [2, 0]])
def test_warnings_point_at_the_caller(estimated, method, orders):
    with pytest.warns(UserWarning, match="alpha=0 counts") as caught:
        getattr(estimated, method)(orders)
    assert {warning.filename for warning in caught} == {__file__}
