import numpy as np
import pytest
import torch

from renyi_lab.krylov import hutchinson_trace, power_iteration
from renyi_lab.operators import MatrixOperator, matrix_with_spectrum

GEOMETRIC = -(0.5 ** np.arange(12.0))  # the largest in magnitude is -1, the ratio to the next 1/2


def test_power_iteration_finds_the_eigenvalue_of_largest_magnitude_and_its_vector():
    A = matrix_with_spectrum(np.concatenate([GEOMETRIC, [0.3]]))
    top = power_iteration(A, num_matvecs=100)
    assert float(top) == top.eigenvalue == pytest.approx(-1, rel=1e-12)
    exact = torch.linalg.eigh(A)[1][:, 0]
    assert abs(float(top.eigenvector @ exact)) == pytest.approx(1, abs=1e-12)


def test_vector_shrinks_its_error_by_the_ratio_and_the_eigenvalue_by_its_square():
    A = matrix_with_spectrum(GEOMETRIC)
    at = [power_iteration(A, num_matvecs=count) for count in (12, 13)]
    assert at[1].residual / at[0].residual == pytest.approx(1 / 2, rel=1e-2)
    assert (at[1].eigenvalue + 1) / (at[0].eigenvalue + 1) == pytest.approx(1 / 4, rel=1e-2)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_residual_is_that_of_the_returned_pair_and_bounds_the_distance_to_an_eigenvalue(count):
    values = np.linspace(-1, 2, 12)
    A = matrix_with_spectrum(values)
    top = power_iteration(A, num_matvecs=count, seed=3)
    assert float(top.eigenvector.norm()) == pytest.approx(1, rel=1e-14)
    assert float((A @ top.eigenvector - float(top) * top.eigenvector).norm()) == pytest.approx(top.residual, rel=1e-12)
    assert np.abs(values - float(top)).min() <= top.residual
    assert top.residual > 1e-3


def test_power_iteration_shows_that_it_does_not_converge_for_opposite_eigenvalues():
    assert power_iteration(matrix_with_spectrum([1.0, -1.0, 0.5])).residual > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_power_iteration_stays_in_its_budget_and_stops_at_rounding(dtype):
    slow = MatrixOperator(matrix_with_spectrum([1.0, 0.99, 0.5]).to(dtype))
    assert (power_iteration(slow, num_matvecs=7).num_matvecs, slow.num_matvecs) == (7, 7)
    quick = MatrixOperator(matrix_with_spectrum([1.0, 1e-4, 0.0]).to(dtype))
    top = power_iteration(quick)
    assert top.num_matvecs == quick.num_matvecs < 10
    assert float(top) == pytest.approx(1, rel=10 * torch.finfo(dtype).eps)


def test_the_zero_matrix_has_the_eigenvalue_zero():
    top = power_iteration(torch.zeros(4, 4))
    assert (float(top), top.residual, top.num_matvecs) == (0, 0, 1)


def test_the_printed_pair_names_its_residual_and_its_cost():
    text = repr(power_iteration(torch.eye(2), seed=1))
    assert text.startswith("TopEigenpair(eigenvalue=1, residual=")
    assert text.endswith(", 1 products)")


def test_hutchinson_is_exact_for_a_diagonal_matrix():
    estimate = hutchinson_trace(torch.diag(torch.arange(5.0)), num_matvecs=2)
    assert (float(estimate), estimate.standard_error, estimate.num_matvecs) == (10, 0, 2)


def test_hutchinson_is_unbiased_with_the_variance_of_the_off_diagonal_part_and_estimates_its_error():
    A = matrix_with_spectrum(np.linspace(-1, 3, 20))
    estimates = [hutchinson_trace(A, num_matvecs=10, seed=seed) for seed in range(400)]
    errors = np.array([float(estimate) for estimate in estimates]) - float(A.trace())
    variance = 2 / 10 * float((A - torch.diag(A.diagonal())).pow(2).sum())
    assert abs(errors.mean()) < 3 * (variance / 400) ** 0.5
    assert errors.var() == pytest.approx(variance, rel=0.25)
    assert np.mean([estimate.standard_error**2 for estimate in estimates]) == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("method", [power_iteration, hutchinson_trace])
def test_results_depend_on_the_seed_and_not_on_the_global_state(method):
    A = matrix_with_spectrum(np.linspace(-1, 3, 20))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = float(method(A, num_matvecs=5, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert float(method(A, num_matvecs=5, seed=1)) == first
    assert float(method(A, num_matvecs=5, seed=2)) != first


class NotFinite:
    shape, dtype = (9, 9), torch.float64

    def __matmul__(self, vector):
        return vector * float("nan")


@pytest.mark.parametrize("method", [power_iteration, hutchinson_trace])
@pytest.mark.parametrize(
    ("operator", "options", "error", "match"),
    [
        (torch.eye(3), {"num_matvecs": 0}, ValueError, "num_matvecs must be at least"),
        (torch.eye(3), {"num_matvecs": 2.5}, TypeError, "num_matvecs must be an integer"),
        (torch.eye(3), {"seed": -1}, ValueError, "seed must be at least 0"),
        (5, {}, TypeError, r"operator must have \.shape"),
        (NotFinite(), {}, ValueError, r"a product of the operator is not finite.*Likely causes"),
    ],
)
def test_messages(method, operator, options, error, match):
    with pytest.raises(error, match=match):
        method(operator, **options)
