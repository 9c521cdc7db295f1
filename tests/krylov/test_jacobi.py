import numpy as np
import pytest

from renyi_lab.krylov import JacobiMatrix, jacobi_matrix

# Legendre polynomials, orthonormal for the uniform measure on [-1, 1]: b_j = j / √(4j² − 1).
J = np.arange(1.0, 12.0)
LEGENDRE = JacobiMatrix(np.zeros(11), J / np.sqrt(4 * J**2 - 1))
NONE = np.zeros((0, 40))


@pytest.mark.parametrize("size", [1, 2, 5, 11])
def test_gauss_rule_is_that_of_legendre(size):
    nodes, weights = LEGENDRE.gauss_rule(size)
    expected_nodes, expected_weights = np.polynomial.legendre.leggauss(size)
    np.testing.assert_allclose(nodes, expected_nodes, atol=1e-14)
    np.testing.assert_allclose(weights, expected_weights / 2, atol=1e-14)


def test_polynomials_are_those_of_legendre():
    x = np.linspace(-1.2, 1.2, 7)
    expected = [np.sqrt(2 * j + 1) * np.polynomial.Legendre.basis(j)(x) for j in range(6)]
    np.testing.assert_allclose(LEGENDRE.polynomials(5, x), expected, rtol=1e-12, atol=1e-13)


def test_extended_rule_is_exact_to_twice_the_size_and_no_further():
    short = JacobiMatrix(LEGENDRE.diagonal[:3], LEGENDRE.off_diagonal[:3])

    def error(rule, degree):
        nodes, weights = rule
        return abs(weights @ nodes**degree - (1 / (degree + 1) if degree % 2 == 0 else 0))

    extended = short.extended().gauss_rule(4)
    assert max(error(extended, degree) for degree in range(7)) < 1e-14
    assert error(short.gauss_rule(3), 6) > 1e-3
    assert error(extended, 8) > 1e-3


@pytest.mark.parametrize("dense", [True, False])
def test_jacobi_matrix_of_a_vector_and_a_matrix(dense):
    rng = np.random.default_rng(0)
    values, start = np.linspace(-1, 2, 40), rng.standard_normal(40)
    jacobi, rows = jacobi_matrix(np.diag(values) if dense else values, start, 12, NONE)
    measure = start**2 / (start @ start)
    p = jacobi.polynomials(11, values)
    np.testing.assert_allclose((p * measure) @ p.T, np.eye(12), atol=1e-10)
    np.testing.assert_allclose(rows @ rows.T, np.eye(12), atol=1e-13)
    nodes, weights = jacobi.gauss_rule(12)
    np.testing.assert_allclose([weights @ nodes**k for k in range(24)], [measure @ values**k for k in range(24)])
    assert not jacobi.exhausted


def test_process_stays_out_of_given_rows():
    values, start, kept_out = np.linspace(-1, 2, 40), np.ones(40), np.eye(40)[:3]
    start[:3] = 0
    jacobi, rows = jacobi_matrix(values, start, 40, kept_out)
    assert len(jacobi) == 37
    assert jacobi.exhausted
    np.testing.assert_array_equal(rows[3:, :3], 0)
    np.testing.assert_allclose(jacobi.gauss_rule(37)[0], values[3:], atol=1e-10)


def test_process_ends_where_nothing_is_left():
    jacobi, _ = jacobi_matrix(np.repeat([1.0, 2.0, 5.0], [20, 10, 10]), np.ones(40), 40, NONE)
    assert (len(jacobi), jacobi.exhausted) == (3, True)
    nodes, weights = jacobi.gauss_rule(3)
    np.testing.assert_allclose(nodes, [1, 2, 5], atol=1e-12)
    np.testing.assert_allclose(weights, [0.5, 0.25, 0.25], atol=1e-12)


def test_coupled_part_ends_at_the_first_coupling_that_is_rounding():
    whole = JacobiMatrix(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1e-17, 1.0, 0.5]))
    assert len(whole.coupled()) == 2
    assert whole.coupled().exhausted
    assert not whole.exhausted
