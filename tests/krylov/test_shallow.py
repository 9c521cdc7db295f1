import numpy as np
import pytest
import torch

from renyi_lab.krylov import JacobiMatrix, shallow_probes
from renyi_lab.operators import MatrixOperator, matrix_with_spectrum

VALUES = np.concatenate([np.linspace(-1, 1, 57), [30.0, 50.0, 90.0]])
COUNTS = (5, 3, 2)
J = np.arange(1.0, 9.0)
LEGENDRE = JacobiMatrix(np.zeros(8), J / np.sqrt(4 * J**2 - 1))
NONE = torch.zeros(0, 60, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def legendre(matrix, degree):
    """``p_0(A) … p_degree(A)`` by the recurrence for dense matrices."""
    values = [torch.eye(len(matrix), dtype=matrix.dtype), matrix / LEGENDRE.off_diagonal[0]]
    for j in range(1, degree):
        last, before = values[-1], values[-2]
        values.append((matrix @ last - LEGENDRE.off_diagonal[j - 1] * before) / LEGENDRE.off_diagonal[j])
    return values


def test_moments_are_those_of_the_probes_up_to_twice_their_steps():
    A = matrix_with_spectrum(VALUES) / 90
    probes = torch.randn(5, 60, dtype=torch.float64, generator=generator())
    probes /= probes.norm(dim=1, keepdim=True)
    moments = shallow_probes(MatrixOperator(A), COUNTS, NONE, 0, generator()).moments(LEGENDRE, 6)
    expected = np.array([[float(u @ p @ u) for p in legendre(A, 6)] for u in probes])
    reached = np.arange(7) <= 2 * np.array([3, 3, 2, 1, 1])[:, None]
    np.testing.assert_array_equal(np.isfinite(moments), reached)
    np.testing.assert_allclose(moments[reached], expected[reached], atol=1e-12)


def test_squares_are_moments_of_the_squared_polynomials():
    A = matrix_with_spectrum(VALUES) / 90
    shallow = shallow_probes(MatrixOperator(A), COUNTS, NONE, 0, generator())
    probes = torch.randn(5, 60, dtype=torch.float64, generator=generator())
    square = legendre(A, 1)[1] @ legendre(A, 1)[1]
    expected = [float(u @ square @ u / (u @ u)) for u in probes]
    np.testing.assert_allclose(shallow.moments(LEGENDRE, 1, power=2)[:, 1], expected, rtol=1e-12)


def test_counts_depth_and_products():
    operator, seen = MatrixOperator(matrix_with_spectrum(VALUES)), []
    shallow = shallow_probes(operator, COUNTS, NONE, 0, generator(), seen.append)
    assert shallow.counts().tolist() == [5, 5, 5, 3, 3, 2, 2]
    assert (shallow.depth, seen, operator.num_matvecs) == (3, [5, 3, 2], 10)


def test_runs_stay_in_the_complement_of_eigenvectors():
    A = matrix_with_spectrum(VALUES)
    eigenvectors = torch.linalg.eigh(A).eigenvectors[:, -3:].T.contiguous()
    low, high = shallow_probes(MatrixOperator(A), (4,) * 8, eigenvectors, 3, generator()).ritz_interval()
    assert -1 <= low < high <= 1
    assert shallow_probes(MatrixOperator(A), (4,) * 8, NONE, 0, generator()).ritz_interval()[1] > 50


def test_probes_are_orthogonal_to_all_rows_but_runs_only_to_the_eigenvectors():
    A = torch.diag(torch.tensor([5.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    A[1, 2] = A[2, 1] = 0.5
    rows = torch.eye(4, dtype=torch.float64)[:2]
    shallow = shallow_probes(MatrixOperator(A), (3, 3), rows, 1, generator())
    # The probes have no component in the second direction, and the first product brings one.
    assert all(run.off_diagonal[0] > 1e-3 for run in shallow.runs)
    assert shallow.ritz_interval()[1] < 1.5 + 1e-12


def test_same_generator_same_probes():
    A = MatrixOperator(matrix_with_spectrum(VALUES))
    first, again, other = (shallow_probes(A, COUNTS, NONE, 0, generator(seed)) for seed in (1, 1, 2))
    assert first.ritz_interval() == again.ritz_interval() != other.ritz_interval()


def test_a_product_that_is_not_finite_is_refused():
    class Broken(MatrixOperator):
        def _matmat(self, vectors):
            return super()._matmat(vectors) * np.nan

    with pytest.raises(ValueError, match="not finite"):
        shallow_probes(Broken(torch.eye(60, dtype=torch.float64)), COUNTS, NONE, 0, generator())


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_moments_do_not_depend_on_the_scale_in_single_precision(scale):
    matrix = torch.diag(torch.linspace(-1, 1, 60)).float()
    operators = (MatrixOperator(factor * matrix) for factor in (1, scale))
    plain, scaled = (shallow_probes(A, COUNTS, NONE.float(), 0, generator()) for A in operators)
    for one, other in zip(plain.runs, scaled.runs, strict=True):
        np.testing.assert_allclose(other.diagonal / scale, one.diagonal, atol=1e-6)
        np.testing.assert_allclose(other.off_diagonal / scale, one.off_diagonal, atol=1e-6)
