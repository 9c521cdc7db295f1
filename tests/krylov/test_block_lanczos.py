import numpy as np
import pytest
import torch

from renyi_lab.krylov import block_lanczos, gauss_rule
from renyi_lab.krylov._lanczos import gaussian_rows
from renyi_lab.operators import MatrixOperator, matrix_with_spectrum

OUTLIERS = np.concatenate([np.linspace(-1, 1, 57), [10.0, 20, 40]])


def run(values, num_probes, num_steps, matrix=None):
    A = matrix_with_spectrum(values) if matrix is None else matrix
    return block_lanczos(MatrixOperator(A), num_probes, num_steps, seed=0, on_step=lambda: None)


@pytest.mark.parametrize("num_probes", [1, 2, 3])
def test_quadrature_of_each_probe_is_exact_to_degree_2m_minus_1_and_no_further(num_probes):
    values, steps = np.linspace(-1, 1, 30), 4
    A = matrix_with_spectrum(values)
    result = run(values, num_probes, steps)
    probes = gaussian_rows(MatrixOperator(A), num_probes, torch.Generator().manual_seed(0))
    size = num_probes * steps
    nodes, vectors = np.linalg.eigh(result.matrix[:size, :size])
    weights = (result.start @ vectors[:num_probes]) ** 2

    def error(degree):
        moments = (probes @ torch.linalg.matrix_power(A, degree) * probes).sum(1).numpy()
        return np.abs(weights @ nodes**degree - moments).max()

    assert max(error(degree) for degree in range(2 * steps)) < 1e-12
    assert error(2 * steps) > 1e-5


def test_converged_eigenvalues_get_weight_one_and_all_weights_sum_to_n():
    rule = gauss_rule(run(OUTLIERS, 2, 15), 15)
    np.testing.assert_allclose(rule.nodes[rule.converged][-3:], [10, 20, 40], rtol=1e-9)
    assert set(rule.weights[rule.converged]) == {1.0}
    assert rule.weights.sum() == pytest.approx(60, rel=1e-12)
    assert rule.plain_weights.sum() == pytest.approx(60, rel=1e-12)
    assert not rule.converged.all()


def test_full_depth_finds_every_eigenvalue_with_its_multiplicity():
    values = np.array([0.0, 0.0, 1.0, 1.0, 3.0, 7.0])
    rule = gauss_rule(run(values, 2, 3), 3)
    np.testing.assert_allclose(rule.nodes, values, atol=1e-12)


def test_leading_blocks_are_shorter_runs():
    long, short = gauss_rule(run(OUTLIERS, 2, 10), 6), gauss_rule(run(OUTLIERS, 2, 6), 6)
    np.testing.assert_allclose(long.nodes, short.nodes, atol=1e-12)
    np.testing.assert_allclose(long.weights, short.weights, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: run([1.0, 2.0], 3, 1), "num_probes must be at most 2"),
        (lambda: run([1.0, 2.0], 0, 1), "num_probes must be at least 1"),
        (lambda: run([1.0, 2.0, 3.0], 2, 2), "num_steps must be at most 1"),
        (lambda: gauss_rule(run([1.0, 2.0, 3.0], 1, 2), 3), "num_steps must be at most 2"),
        (lambda: run(None, 1, 1, matrix=1e200 * torch.eye(3).double()), "a product of the operator is not finite"),
    ],
)
def test_messages(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_no_coupling_of_a_steep_spectrum_in_single_precision_is_declared_zero():
    A = torch.diag(torch.arange(1, 3001, dtype=torch.float64) ** -2).float()
    result = run(None, 2, 70, A)
    couplings = [np.linalg.svd(result.matrix[2 * j + 2 : 2 * j + 4, 2 * j : 2 * j + 2])[1].min() for j in range(70)]
    assert min(couplings) > 0
    assert gauss_rule(result, 70).converged.sum() < 100  # of 140; closed too early, it would be all
