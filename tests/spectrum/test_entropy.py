import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renyi_lab.spectrum import (
    effective_number,
    entropy_influence,
    escort_probabilities,
    renyi_entropy,
    weighted_escort,
    weighted_renyi_entropy,
)

ORDERS = [0, 1e-3, 0.5, 0.89, 0.91, 1 - 1e-9, 1, 1 + 1e-9, 1.09, 1.11, 1.5, 2, 7.5, 200, 1e6, math.inf]
DISTANCES = [1e-12, 1e-9, 1e-6, 1e-3, 0.0999, 0.1, 0.1001, 0.5]
SKEWED = np.array([1e-30, 1e-9, 0.003, 0.4, 0.4, 12.0, 700.0])

properties = settings(deadline=None, derandomize=True, max_examples=60)
magnitudes = st.one_of(st.just(0.0), st.floats(1e-12, 1e6))
vectors = st.lists(magnitudes, min_size=1, max_size=30).filter(any).map(np.array)
orders = st.one_of(st.floats(0, 50), st.floats(0.85, 1.15), st.sampled_from([0.0, 1.0, 2.0, math.inf]))


def entropy_in_50_digits(p, alpha):
    with mpmath.workdps(50):
        exact = [mpmath.mpf(float(value)) for value in p if value > 0]
        total = mpmath.fsum(exact)
        exact = [value / total for value in exact]
        if alpha == 1:
            return float(-mpmath.fsum(value * mpmath.log(value) for value in exact))
        order = mpmath.mpf(alpha)
        return float(mpmath.log(mpmath.fsum(value**order for value in exact)) / (1 - order))


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("n", [1, 2, 1000])
def test_uniform_has_entropy_log_n_at_every_order(alpha, n):
    assert renyi_entropy(np.full(n, 0.3), alpha) == pytest.approx(math.log(n), abs=1e-12)


@pytest.mark.parametrize("alpha", ORDERS)
def test_one_hot_has_entropy_zero_at_every_order(alpha):
    assert renyi_entropy([0.0, 5.0, 0.0], alpha) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.5, 2, 3])
def test_two_level_spectrum_follows_its_closed_form(alpha):
    heavy, light, many = 0.7, 0.003, 100
    expected = math.log(heavy**alpha + many * light**alpha) / (1 - alpha)
    assert renyi_entropy([heavy] + [light] * many, alpha) == pytest.approx(expected, abs=1e-12)


def test_named_limits_follow_their_closed_forms():
    p = np.array([0.5, 0.25, 0.125, 0.125, 0.0])
    assert renyi_entropy(p, 0) == pytest.approx(math.log(4), abs=1e-12)
    assert renyi_entropy(p, 1) == pytest.approx(1.75 * math.log(2), abs=1e-12)
    assert renyi_entropy(p, 2) == pytest.approx(-math.log(0.34375), abs=1e-12)
    assert renyi_entropy(p, math.inf) == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("p", [SKEWED, np.arange(1.0, 300.0) ** -1.7], ids=["skewed", "power law"])
def test_orders_around_one_agree_with_50_digit_arithmetic(p, side, distance):
    alpha = 1 + side * distance
    assert renyi_entropy(p, alpha) == pytest.approx(entropy_in_50_digits(p, alpha), rel=1e-10)


@pytest.mark.parametrize("alpha", [1e-3, 5, 60, 1e4])
def test_extreme_orders_agree_with_50_digit_arithmetic(alpha):
    assert renyi_entropy(SKEWED, alpha) == pytest.approx(entropy_in_50_digits(SKEWED, alpha), rel=1e-10)


def test_large_order_approaches_min_entropy():
    assert renyi_entropy(SKEWED, 1e12) == pytest.approx(renyi_entropy(SKEWED, math.inf), rel=1e-10)


@properties
@given(vectors, orders, orders)
def test_never_increases_with_alpha(p, first, second):
    low, high = sorted((first, second))
    assert renyi_entropy(p, high) <= renyi_entropy(p, low) + 1e-10


@properties
@given(vectors, orders)
def test_is_between_zero_and_log_n(p, alpha):
    assert -1e-10 <= renyi_entropy(p, alpha) <= math.log(len(p)) + 1e-10


@properties
@given(vectors, orders, st.floats(1e-100, 1e100))
def test_does_not_depend_on_scale(p, alpha, scale):
    assert renyi_entropy(scale * p, alpha) == pytest.approx(renyi_entropy(p, alpha), abs=1e-9)


@properties
@given(vectors, orders)
def test_torch_and_numpy_agree(p, alpha):
    assert float(renyi_entropy(torch.from_numpy(p), alpha)) == renyi_entropy(p, alpha)


@properties
@given(st.lists(st.tuples(st.floats(1e-6, 1e6), st.integers(1, 5)), min_size=1, max_size=8), orders)
def test_multiplicities_count_like_repeated_entries(pairs, alpha):
    values, counts = np.array(pairs).T
    weighted = weighted_renyi_entropy(torch.from_numpy(values), torch.from_numpy(counts), alpha)
    repeated = renyi_entropy(np.repeat(values, counts.astype(int)), alpha)
    assert float(weighted) == pytest.approx(repeated, abs=1e-10)


@pytest.mark.parametrize("alpha", [0, 0.3, 0.95, 1, 1.05, 1.5, 2, math.inf])
def test_gradient_agrees_with_finite_differences(alpha):
    p = torch.tensor([0.1, 0.2, 3.0, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: renyi_entropy(values, alpha), p)


@pytest.mark.parametrize("alpha", [0.5, 1, 1.05, 2])
def test_gradient_is_finite_where_an_entry_is_zero(alpha):
    p = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(renyi_entropy(p, alpha), p)[0]).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_result_has_the_dtype_of_the_tensor_and_is_computed_in_double(dtype):
    p = torch.full((3000,), 1e-4, dtype=dtype)  # in half precision the sum alone would lose three digits
    entropy = renyi_entropy(p, 1.5)
    assert entropy.dtype == dtype
    torch.testing.assert_close(entropy, torch.tensor(math.log(3000), dtype=dtype), rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(
    "p",
    [
        [1, 2, 5],
        (1.0, 2.0, 5.0),
        np.array([5.0, 2.0, 1.0])[::-1],
        np.array([1.0, 2.0, 5.0]).astype(np.float16),
        np.array([1, 2, 5], dtype=np.uint8),
        np.broadcast_to(np.array([1.0, 2.0, 5.0]), 3),  # read-only
        torch.tensor([1, 2, 5]),
    ],
    ids=["list", "tuple", "reversed view", "float16", "uint8", "read-only", "integer tensor"],
)
def test_every_kind_of_vector_is_accepted(p):
    assert float(renyi_entropy(p, 2)) == pytest.approx(-math.log(30 / 64), abs=1e-12)


def test_the_input_is_not_modified():
    p = np.array([3.0, 1.0])
    tensor = torch.tensor([3.0, 1.0])
    renyi_entropy(p, 0.5), renyi_entropy(tensor, 0.5), escort_probabilities(p, 2)
    assert p.tolist() == tensor.tolist() == [3, 1]


def test_effective_number_is_the_effective_rank_at_one_and_the_participation_ratio_at_two():
    # Roy & Vetterli 2007, definition 2: the exponential of the entropy of normalised singular values.
    shares = SKEWED / SKEWED.sum()
    assert effective_number(SKEWED, 1) == pytest.approx(np.prod(shares**-shares), rel=1e-12)
    assert effective_number(SKEWED, 2) == pytest.approx(SKEWED.sum() ** 2 / (SKEWED**2).sum(), rel=1e-12)


@pytest.mark.parametrize("alpha", ORDERS)
def test_effective_number_is_the_exponential(alpha):
    assert effective_number([2.0] * 7, alpha) == pytest.approx(7, rel=1e-11)
    assert float(effective_number(torch.tensor(SKEWED), alpha)) == pytest.approx(math.exp(renyi_entropy(SKEWED, alpha)))


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(0, [0.5, 0, 0.5]), (1, [0.25, 0, 0.75]), (2, [0.1, 0, 0.9]), (1e5, [0, 0, 1]), (math.inf, [0, 0, 1])],
)
def test_escort_probabilities_follow_their_closed_form(alpha, expected):
    np.testing.assert_allclose(escort_probabilities([1e300, 0, 3e300], alpha), expected, atol=1e-15)


def test_weighted_escort_counts_multiplicities():
    np.testing.assert_allclose(weighted_escort(np.array([1.0, 3.0]), np.array([9.0, 1.0]), 2.0), [0.5, 0.5])


@pytest.mark.parametrize("alpha", [0, 0.5, 1 - 1e-13, 1, 1 + 1e-9, 1.3, 2, math.inf])
def test_influence_is_the_derivative_by_each_multiplicity(alpha):
    values, counts = np.array([0.0, 0.2, 1.0, 30.0]), np.array([4.0, 2.5, 1.0, 3.0])

    def entropy(weights):
        return float(weighted_renyi_entropy(torch.from_numpy(values), torch.from_numpy(weights), alpha))

    step = 1e-5 * np.eye(4)
    numerical = [(entropy(counts + e) - entropy(counts - e)) / 2e-5 for e in step]
    np.testing.assert_allclose(entropy_influence(values, counts, alpha), numerical, atol=1e-8)


@pytest.mark.parametrize("function", [renyi_entropy, effective_number, escort_probabilities])
@pytest.mark.parametrize(
    ("p", "alpha", "error", "message"),
    [
        ([1.0], -0.5, ValueError, r"alpha must .*\[0, inf\], got -0.5.*Shannon"),
        ([1.0], math.nan, ValueError, "alpha"),
        ([1.0], "2", TypeError, "alpha must be a real number"),
        ([1.0], True, TypeError, "alpha must be a real number"),
        ([1.0, -1e-3], 2, ValueError, "p must be non-negative, got an entry -0.001.*absolute"),
        ([0.0, 0.0], 2, ValueError, "p is all zero"),
        ([1.0, math.nan], 2, ValueError, "p must be finite"),
        ([1.0, math.inf], 2, ValueError, "p must be finite"),
        ([], 2, ValueError, "at least one entry"),
        (1.0, 2, ValueError, "p must be a vector"),
        ([[1.0], [2.0]], 2, ValueError, r"shape \(2, 1\).*reshape"),
        ([[1.0], [2.0, 3.0]], 2, ValueError, "p must be a vector of numbers"),
        ([1.0 + 0j], 2, TypeError, "p must hold real numbers, got dtype complex128"),
        (torch.tensor([1j]), 2, TypeError, "p must hold real numbers"),
        ([True, False], 2, TypeError, "p must hold real numbers, got dtype bool"),
        (["a"], 2, TypeError, "p must hold real numbers"),
        ([None, 1.0], 2, TypeError, "p must hold real numbers"),
    ],
)
def test_errors_name_the_argument(function, p, alpha, error, message):
    with pytest.raises(error, match=message):
        function(p, alpha)
