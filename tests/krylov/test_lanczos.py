import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from renyi_lab.krylov import lanczos, lanczos_steps
from renyi_lab.operators import MatrixOperator, matrix_with_spectrum

SPECTRA = {
    "distinct": np.linspace(-1, 3, 12),
    "repeated": np.repeat([5.0, 2.0, 1.0], [3, 4, 5]),
    "with zeros": np.array([4.0, 1.0, 0.5] + [0.0] * 9),
    "indefinite": np.array([-3.0, -3.0, -1.0, 0, 0, 0, 0.2, 0.2, 2, 2, 2, 7]),
    "negative": -np.geomspace(1e-3, 1, 12),
}
OUTLIERS = np.concatenate([np.linspace(0, 1, 195), [10.0, 20, 40, 80, 160]])


def start_vector(n, seed=0, dtype=torch.float64):
    return torch.randn(n, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=SPECTRA)
def spectrum(request):
    return SPECTRA[request.param]


def test_full_depth_satisfies_the_lanczos_relation(spectrum):
    A, n = matrix_with_spectrum(spectrum), len(spectrum)
    run = lanczos(A, start_vector(n), num_steps=n)
    Q, T, m = run.basis, torch.from_numpy(run.matrix()), run.num_steps
    torch.testing.assert_close(Q @ Q.T, torch.eye(m).double(), rtol=0, atol=1e-13)
    residual = A @ Q.T - Q.T @ T
    assert residual[:, :-1].abs().max() < 1e-13 * np.abs(spectrum).max()
    assert float(residual[:, -1].norm()) == pytest.approx(run.off_diagonal[-1], abs=1e-13)
    assert run.breakdown
    assert run.off_diagonal[-1] < 1e-12
    np.testing.assert_allclose(run.residuals, 0, atol=1e-12)


def test_full_depth_finds_distinct_eigenvalues_weighted_by_squared_projections(spectrum):
    A, v = matrix_with_spectrum(spectrum), start_vector(12)
    run = lanczos(A, v, num_steps=12)
    values, vectors = torch.linalg.eigh(A)
    projections = (vectors.T @ v / v.norm()) ** 2
    for value in np.unique(spectrum):
        assert np.abs(run.ritz_values - value).min() < 1e-12
        near = np.abs(run.ritz_values - value) < 1e-9
        expected = float(projections[(values - value).abs() < 1e-9].sum())
        assert run.weights[near].sum() == pytest.approx(expected, abs=1e-12)
    assert run.weights.sum() == pytest.approx(1, abs=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gauss_quadrature_is_exact_to_degree_2m_minus_1_and_no_further(steps):
    A, v = matrix_with_spectrum(np.linspace(-1, 1, 30)), start_vector(30)
    run = lanczos(A, v, num_steps=steps)
    q = v / v.norm()

    def error(degree):
        moment = q @ torch.linalg.matrix_power(A, degree) @ q
        return abs(float(moment) - float(run.weights @ run.ritz_values**degree))

    assert max(error(degree) for degree in range(2 * steps)) < 1e-14
    assert error(2 * steps) > 1e-5


def test_residuals_are_those_of_the_ritz_pairs():
    A = matrix_with_spectrum(OUTLIERS)
    run = lanczos(A, num_steps=25)
    X = run.ritz_vectors()
    actual = (X @ A - torch.from_numpy(run.ritz_values)[:, None] * X).norm(dim=1)
    np.testing.assert_allclose(run.residuals, actual, atol=1e-11)
    chosen = np.array([0, 24])
    torch.testing.assert_close(run.ritz_vectors(chosen), X[chosen])
    assert run.ritz_values[-1] == pytest.approx(160, rel=1e-12)


def test_plain_recurrence_produces_ghost_eigenvalues_and_reorthogonalization_prevents_them():
    A = matrix_with_spectrum(OUTLIERS)
    plain = lanczos(A, num_steps=80, reorthogonalize=False)
    full = lanczos(A, num_steps=80)
    assert (np.abs(plain.ritz_values - 160) < 1e-6).sum() > 1
    assert (np.abs(full.ritz_values - 160) < 1e-6).sum() == 1
    Q = plain.basis
    assert (Q @ Q.T - torch.eye(80).double()).abs().max() > 0.1


def test_plain_recurrence_reports_no_breakdown():
    A = matrix_with_spectrum(np.concatenate([np.linspace(0, 1, 35), [50.0]]))
    run = lanczos(A, num_steps=36, reorthogonalize=False)
    assert run.off_diagonal[-1] > 1e-3
    assert not run.breakdown


def test_deflation_runs_on_the_complement():
    A = matrix_with_spectrum(OUTLIERS)
    values, vectors = torch.linalg.eigh(A)
    top = vectors[:, -5:].T
    run = lanczos(A, num_steps=30, deflate=top)
    assert (run.basis @ top.T).abs().max() < 1e-13
    assert run.ritz_values.max() == pytest.approx(1, abs=1e-3)
    whole = lanczos(A, num_steps=200, deflate=top)
    assert (whole.num_steps, whole.breakdown) == (195, True)
    np.testing.assert_allclose(whole.ritz_values, values[:-5], atol=1e-12)


def test_leading_equals_a_shorter_run():
    A, v = matrix_with_spectrum(OUTLIERS), start_vector(200)
    long, short = lanczos(A, v, num_steps=50), lanczos(A, v, num_steps=20)
    cut = long.leading(20)
    for name in ("ritz_values", "weights", "residuals", "diagonal", "off_diagonal"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(short, name))
    assert torch.equal(cut.basis, short.basis)


def test_every_step_yields_what_a_run_of_that_length_gives_and_keeps_it():
    A, v = matrix_with_spectrum(OUTLIERS), start_vector(200)
    steps = list(lanczos_steps(A, v, num_steps=70))  # past 32 and 64, where the basis is enlarged
    assert [step.num_steps for step in steps] == list(range(1, 71))
    for m in (1, 31, 33, 65):
        alone = lanczos(A, v, num_steps=m)
        np.testing.assert_array_equal(steps[m - 1].ritz_values, alone.ritz_values)
        assert torch.equal(steps[m - 1].basis, alone.basis)


@pytest.mark.parametrize(
    ("matrix", "start", "steps"),
    [
        (torch.eye(6).double(), None, 1),
        (torch.zeros(6, 6).double(), None, 1),
        (torch.diag(torch.tensor([1.0, 1, 4, 4, 9, 9])).double(), None, 3),
        (torch.diag(torch.arange(6.0)).double(), torch.tensor([0.0, 1, 0, 1, 0, 0]).double(), 2),
        (torch.tensor([[3.0]]).double(), None, 1),
        (torch.diag(torch.arange(6.0)), None, 6),
    ],
    ids=["identity", "zero", "three levels", "start in a subspace", "1x1", "full depth"],
)
def test_exhausted_krylov_space_is_flagged_and_stops_the_run(matrix, start, steps):
    operator = MatrixOperator(matrix)
    run = lanczos(operator, start, num_steps=6)
    assert (run.num_steps, run.breakdown, operator.num_matvecs) == (steps, True, steps)
    exact = torch.linalg.eigvalsh(matrix).double().numpy()
    assert np.abs(run.ritz_values[:, None] - exact).min(axis=1).max() < 1e-5


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_breakdown_is_relative_to_the_size_of_the_matrix(scale):
    A = scale * matrix_with_spectrum(np.linspace(1, 2, 20))
    assert not lanczos(A, num_steps=8).breakdown
    assert lanczos(scale * torch.eye(20).double(), num_steps=8).num_steps == 1


def test_one_product_a_step_and_never_more_than_n():
    operator = MatrixOperator(matrix_with_spectrum(OUTLIERS))
    lanczos(operator, num_steps=17)
    assert operator.num_matvecs == 17
    assert lanczos(operator, num_steps=1000).num_steps == 200


def test_single_precision_vectors_give_double_precision_coefficients():
    A = matrix_with_spectrum(OUTLIERS)
    double, single = lanczos(A, start_vector(200), num_steps=20), lanczos(A.float(), start_vector(200), num_steps=20)
    assert single.basis.dtype == torch.float32
    assert single.diagonal.dtype == np.float64
    Q = single.basis.double()
    assert (Q @ Q.T - torch.eye(20)).abs().max() < 1e-5
    np.testing.assert_allclose(single.ritz_values[-5:], double.ritz_values[-5:], rtol=1e-5)


def test_seed_fixes_the_run_and_global_random_state_is_untouched():
    A, state = matrix_with_spectrum(OUTLIERS), torch.get_rng_state()
    first, again, other = (lanczos(A, num_steps=5, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.basis, again.basis)
    assert not torch.allclose(first.basis[0], other.basis[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_start_vector_is_normalized_and_not_changed():
    v = start_vector(200)
    before = v.clone()
    run = lanczos(matrix_with_spectrum(OUTLIERS), 7 * v, num_steps=3)
    assert torch.equal(v, before)
    torch.testing.assert_close(run.basis[0], v / v.norm())


def test_takes_numpy_matrices_and_scipy_operators():
    A = matrix_with_spectrum(OUTLIERS)
    expected = lanczos(A, num_steps=9).ritz_values
    for other in (A.numpy(), scipy.sparse.linalg.aslinearoperator(A.numpy())):
        np.testing.assert_allclose(lanczos(other, num_steps=9).ritz_values, expected, atol=1e-11)


EYE = torch.eye(4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_steps": 0}, ValueError, "num_steps must be at least 1, got 0"),
        ({"num_steps": 2.0}, TypeError, "num_steps must be an integer"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"start": torch.ones(3)}, ValueError, r"start must have shape \(4,\), got \(3,\)"),
        ({"start": torch.ones(4, 1)}, ValueError, "start must have shape"),
        ({"start": np.ones(4)}, TypeError, "start must be a torch tensor, got ndarray"),
        ({"start": torch.zeros(4)}, ValueError, "start must be finite and not zero"),
        ({"start": torch.full((4,), np.nan)}, ValueError, "start must be finite"),
        ({"start": torch.ones(4, dtype=torch.complex64)}, TypeError, "start must be real"),
        ({"start": torch.ones(4, device="meta")}, ValueError, "start is on meta, the operator on cpu"),
        ({"start": EYE[0] + EYE[1], "deflate": EYE[:2]}, ValueError, "outside deflate's span"),
        ({"deflate": EYE}, ValueError, r"deflate must have shape \(k, 4\) with k < 4, got \(4, 4\)"),
        ({"deflate": EYE[0]}, ValueError, r"deflate must have shape \(k, 4\)"),
        ({"deflate": 2 * EYE[:1]}, ValueError, "deflate must have orthonormal rows"),
        ({"deflate": np.eye(4)[:1]}, TypeError, "deflate must be a torch tensor, got ndarray"),
    ],
)
@pytest.mark.parametrize("function", [lanczos, lanczos_steps])
def test_bad_arguments_are_named_before_any_product(function, options, error, message):
    operator = MatrixOperator(EYE)
    with pytest.raises(error, match=message):
        function(operator, **{"num_steps": 2} | options)
    assert operator.num_matvecs == 0


NOT_FINITE = scipy.sparse.linalg.LinearOperator((3, 3), matvec=lambda v: v * np.nan, dtype=float)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: lanczos(NOT_FINITE, num_steps=2), r"not finite\. Likely causes"),
        (lambda: lanczos(EYE, num_steps=2, reorthogonalize=False).leading(2), "num_steps must be at most 1"),
        (lambda: lanczos(EYE, num_steps=2, reorthogonalize=False, restart=True), "restart=True needs reorthogonalize"),
    ],
)
def test_later_messages(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("exponent", [2, 2.5])
def test_small_couplings_of_a_steep_spectrum_in_single_precision_are_not_a_breakdown(exponent):
    A = torch.diag(torch.arange(1, 5001, dtype=torch.float64) ** -exponent).float()
    run = lanczos(A, num_steps=150)
    assert (run.num_steps, run.breakdown) == (150, False)
    Q = run.basis.double()
    assert (Q @ Q.T - torch.eye(150)).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_restart_finds_further_copies_and_leaves_the_weights(dtype):
    values = np.repeat([1.0, 3.0, 50.0], [20, 10, 5])
    A = matrix_with_spectrum(values).to(dtype)
    run, short = lanczos(A, num_steps=30, restart=True), lanczos(A, num_steps=3)
    assert run.num_steps == 30
    Q, eps = run.basis.double(), torch.finfo(dtype).eps
    assert (Q @ Q.T - torch.eye(30)).abs().max() < 100 * eps
    assert sorted(np.abs(run.ritz_values[:, None] - [1, 3, 50]).argmin(axis=1))[-5:] == [2] * 5
    for value in (1.0, 3.0, 50.0):
        weight, expected = (r.weights[np.abs(r.ritz_values - value) < 0.1].sum() for r in (run, short))
        assert weight == pytest.approx(expected, abs=1e3 * eps)


def test_restart_goes_on_to_the_last_dimension():
    run = lanczos(torch.zeros(5, 5), num_steps=9, restart=True)
    assert (run.num_steps, run.breakdown) == (5, True)
    np.testing.assert_allclose(run.basis @ run.basis.T, np.eye(5), atol=1e-6)
