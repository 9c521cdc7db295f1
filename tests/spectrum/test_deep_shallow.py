"""The steps of `estimate_spectrum`, each against the dense matrix."""

import numpy as np
import pytest
import torch

from renyi_lab.krylov import lanczos
from renyi_lab.operators import MatrixOperator, matrix_with_spectrum
from renyi_lab.spectrum import Spectrum, estimate_spectrum
from renyi_lab.spectrum import _calibration as calibration
from renyi_lab.spectrum._deep_shallow import fresh_probes, probe_plan, split_deep

SIMPLE = np.concatenate([np.linspace(-0.3, 1, 280), np.geomspace(2, 100, 20)])
EPS = 2.2e-16


def both(values, num_steps=60, plan=(8, 5), seed=0):
    operator = MatrixOperator(matrix_with_spectrum(values))
    run = lanczos(operator, num_steps=num_steps, seed=seed, restart=True)
    deep = split_deep(run, len(values), EPS)
    return deep, fresh_probes(operator, deep, plan, torch.Generator().manual_seed(seed + 100))


@pytest.mark.parametrize("num_matvecs", [1, 15, 16, 50, 100, 200, 400, 1000])
def test_plan_keeps_to_its_share_and_its_fewest_probes(num_matvecs):
    plan = probe_plan(num_matvecs)
    assert sum(plan) <= num_matvecs / 4
    assert list(plan) == sorted(plan, reverse=True)
    assert all(count >= 4 for count in plan)
    assert bool(plan) == (num_matvecs >= 16)


def test_split_finds_eigenpairs_and_the_measure_of_the_others():
    deep, _ = both(SIMPLE)
    largest = np.sort(SIMPLE)[-len(deep.eigenvalues) :]
    np.testing.assert_allclose(deep.eigenvalues, largest, rtol=1e-6)
    assert 10 <= len(deep.eigenvalues) <= 52
    rows = torch.from_numpy(deep.rows) @ deep.run.basis
    torch.testing.assert_close(rows @ rows.T, torch.eye(60).double(), rtol=0, atol=1e-11)
    # The rest's basis makes the matrix tridiagonal, and couples to what was not seen through its last vector.
    rest = rows[len(deep.eigenvalues) :]
    A = matrix_with_spectrum(SIMPLE)
    off_diagonal = deep.rest.off_diagonal[:-1]
    expected = np.diag(deep.rest.diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    np.testing.assert_allclose(rest @ A @ rest.T, expected, atol=1e-6)
    outside = A @ rest[-1] - rows.T @ (rows @ (A @ rest[-1]))
    assert float(outside.norm()) == pytest.approx(deep.rest.off_diagonal[-1], rel=1e-3)


def test_split_leaves_some_pairs_and_finds_none_if_nobody_checks_them():
    operator = MatrixOperator(torch.diag(2.0 ** -torch.arange(40, dtype=torch.float64)))
    run = lanczos(operator, num_steps=36, restart=True)
    assert split_deep(run, 40, EPS).found.sum() == 28
    assert split_deep(run, 40, EPS, count=False).found.sum() == 0


def test_start_inside_the_eigenspaces_leaves_no_measure():
    assert split_deep(lanczos(torch.eye(50).double(), num_steps=20, restart=True), 50, EPS).rest is None


def test_known_traces_are_those_of_the_matrix_on_the_known_space():
    deep, shallow = both(SIMPLE)
    population = calibration.Population(deep.eigenvalues, deep.rest, 300 - len(deep.eigenvalues))
    nodes, _, mass = population.rule()
    basis, degree = calibration._orthonormal(nodes, mass, 4)
    traces, size = calibration._known_traces(population, deep, shallow.depth, basis, degree)
    rows = torch.from_numpy(deep.rows) @ deep.run.basis
    known = rows[len(deep.eigenvalues) :][:size]
    A = matrix_with_spectrum(SIMPLE)
    projector = torch.eye(300).double() - rows[: 300 - population.size].T @ rows[: 300 - population.size]
    values, vectors = torch.linalg.eigh(projector @ A @ projector)
    inside = (known @ vectors) ** 2
    expected = basis.polynomials(degree, values.numpy()) @ inside.sum(dim=0).numpy()
    assert size == len(deep.rest) - 2
    # Pairs that are found have residuals of up to 1e-3·|θ|; the noise of the shallow probes is ten times as large.
    np.testing.assert_allclose(traces[:2], expected[:2], atol=1e-4)
    np.testing.assert_allclose(traces / population.size, expected / population.size, atol=3e-3)


def test_calibrated_rule_has_the_measured_moments():
    deep, shallow = both(SIMPLE)
    population = calibration.Population(deep.eigenvalues, deep.rest, 300 - len(deep.eigenvalues))
    found = calibration._calibrate(population, deep, shallow)
    nodes, shares, mass = population.rule()
    p = found.basis.polynomials(len(found.shrink) - 1, nodes)
    calibrated = shares + mass * (found.correction @ p)
    fresh = shallow.moments(found.basis, 1)[:, 1].mean()
    known, size = calibration._known_traces(population, deep, shallow.depth, found.basis, 1)
    measured = (known[1] + (population.size - size) * fresh) / population.size
    raw = p[1] @ shares
    assert p[1] @ calibrated == pytest.approx(raw + found.shrink[1] * (measured - raw), rel=1e-9)
    assert 0.8 < found.shrink[1] < 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("copies", "split", "repeated"),
    [(1, 0.0, False), (2, 0.0, None), (10, 0.0, True), (10, 1e-9, True), (10, 1e-2, False)],
)
def test_repeated_and_nearly_repeated_eigenvalues_are_noticed(copies, split, repeated, seed):
    levels = np.arange(1.0, 401.0) ** -1.2
    values = (levels[:, None] * (1 + split * np.arange(copies))).ravel()
    rule, model = calibration.weigh(*both(values[:800], num_steps=100, plan=(16, 8, 5, 4), seed=seed))
    assert repeated in (None, model.repeated)  # pairs may pass for simple eigenvalues: the moments are right anyway
    spectrum = Spectrum(rule.nodes, rule.weights, rule.dim, 133, model)
    for alpha in (0.5, 1, 2):
        entropy, exact = spectrum.renyi_entropy(alpha), Spectrum.from_eigenvalues(values[:800]).renyi_entropy(alpha)
        assert abs(entropy.value - exact.value) < 3.5 * entropy.standard_error


def test_zeros_beside_a_low_rank_are_exact_zeros():
    values = np.concatenate([np.zeros(280), np.arange(1.0, 21.0)])
    rule, model = calibration.weigh(*both(values))
    np.testing.assert_allclose(np.sort(rule.nodes)[-20:], np.arange(1.0, 21.0), rtol=1e-10)
    assert rule.weights[rule.nodes == 0].sum() == pytest.approx(280)
    assert 0 <= model.noise < 1e-12


@pytest.mark.parametrize(("steps", "last"), [(1, [1]), (2, [2]), (9, [6, 7, 8, 9])])
def test_last_half_of_the_steps(steps, last):
    assert calibration.last_half(steps) == last


def test_last_half_of_many_steps_has_an_odd_stride():
    steps = calibration.last_half(1000)
    assert len(steps) <= calibration.MOST_RULES * 1.5
    assert set(np.diff(steps) % 2) == {1}
    assert steps[-1] == 1000
    assert steps[0] >= 500


def test_a_cluster_that_one_run_sees_through_few_vectors_is_noticed():
    clusters = 10.0 ** -np.repeat(np.arange(6.0), 100)
    values = clusters * (1 + 1e-3 * np.tile(np.linspace(-1, 1, 100), 6))
    for seed in range(5):
        rule, model = calibration.weigh(*both(values, num_steps=75, plan=(13, 6, 4), seed=seed))
        assert model.repeated
        spectrum = Spectrum(rule.nodes, rule.weights, rule.dim, 98, model)
        for alpha in (0.5, 1, 2):
            entropy, exact = spectrum.renyi_entropy(alpha), Spectrum.from_eigenvalues(values).renyi_entropy(alpha)
            assert abs(entropy.value - exact.value) < 3.5 * entropy.standard_error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_matvecs", [20, 40, 100])
def test_two_eigenvalues_of_opposite_sign(num_matvecs, dtype):
    values = np.repeat([1.0, -1.0], [140, 160])
    A = MatrixOperator(matrix_with_spectrum(values).to(dtype))
    for seed in range(8):
        spectrum = estimate_spectrum(A, num_matvecs=num_matvecs, seed=seed)
        assert spectrum.has_repeated
        assert abs(spectrum.trace.value + 20) < 4 * spectrum.trace.standard_error
        for alpha in (0.5, 1, 2):
            rounding = 1e-6 if dtype == torch.float64 else 1e-4
            assert spectrum.renyi_entropy(alpha).value == pytest.approx(np.log(300), abs=rounding)
