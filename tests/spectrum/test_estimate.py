import curvlinops
import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import nn

from renyi_lab import datasets, models
from renyi_lab.operators import HessianOperator, MatrixOperator, matrix_with_spectrum
from renyi_lab.spectrum import Spectrum, estimate_spectrum, exact_spectrum
from renyi_lab.spectrum._deep_shallow import probe_plan
from renyi_lab.training import train

OUTLIERS = np.concatenate([np.linspace(-0.05, 1, 390), np.geomspace(2, 100, 10)])
ALPHAS = (1, 1.5, 2)
ZEROS = torch.zeros(50, 50, dtype=torch.float64)
few_products = pytest.mark.filterwarnings("ignore:.*products in .* Lanczos steps:UserWarning")


class Counting(MatrixOperator):
    """Counts its products independently of `num_matvecs`."""

    products = 0

    def _matvec(self, vector):
        self.products += 1
        return super()._matvec(vector)

    def _matmat(self, vectors):
        self.products += vectors.shape[1]
        return super()._matmat(vectors)


@pytest.fixture(scope="module")
def matrix():
    return matrix_with_spectrum(OUTLIERS)


@pytest.fixture(scope="module")
def trained():
    """The Hessian of a trained network of 1,030 parameters, and its exact spectrum.

    Trained briefly in float64, so that no comparison depends on the rounding of the training.
    """
    train_set, _ = datasets.mnist1d(num_samples=1000)
    x, y = train_set.tensors
    model = models.mlp(40, 20, 10).double()
    train(model, (x.double(), y), epochs=10, lr=0.1, batch_size=64)
    H = HessianOperator(model, nn.CrossEntropyLoss(), (x.double(), y))
    return H, exact_spectrum(H)


def test_exact_spectrum_holds_the_eigenvalues(matrix):
    spectrum = exact_spectrum(matrix)
    np.testing.assert_allclose(spectrum.nodes, OUTLIERS, atol=1e-12)
    assert (spectrum.is_exact, spectrum.num_matvecs, spectrum.dim) == (True, 400, 400)


@pytest.mark.parametrize("num_matvecs", [1, 5, 16, 100, 201, 399])
def test_products_are_those_of_the_budget_and_are_counted(matrix, num_matvecs):
    operator = Counting(matrix)
    spectrum = estimate_spectrum(operator, num_matvecs=num_matvecs)
    assert operator.products == operator.num_matvecs == spectrum.num_matvecs == num_matvecs
    assert not spectrum.is_exact


@pytest.mark.parametrize("name", ["k^-2", "10 copies of k^-1.5", "rank 20"])
@pytest.mark.parametrize(("alpha", "target_error"), [(0.5, 0.05), (2.0, 0.005)])
def test_target_error_is_met_with_as_few_rounds_as_it_takes(name, alpha, target_error):
    k = np.arange(1.0, 3001.0)
    values = {"k^-2": k**-2, "10 copies of k^-1.5": np.repeat(k[:300] ** -1.5, 10), "rank 20": k * (k <= 20)}[name]
    operator = Counting(torch.diag(torch.from_numpy(values)))
    spectrum = estimate_spectrum(operator, target_error=target_error, alpha=alpha)
    entropy, exact = spectrum.renyi_entropy(alpha), Spectrum.from_eigenvalues(values).renyi_entropy(alpha)
    assert operator.products == spectrum.num_matvecs <= 2000
    assert entropy.standard_error <= target_error
    assert abs(entropy.value - exact.value) < 4 * target_error
    if spectrum.num_matvecs > 100:  # the round before did not meet it
        first = estimate_spectrum(operator, num_matvecs=100).renyi_entropy(alpha)
        assert first.standard_error > target_error


def test_rounds_go_on_with_one_lanczos_run():
    operator = Counting(torch.diag(torch.linspace(0, 1, 2000, dtype=torch.float64)))
    with pytest.warns(UserWarning, match=r"target_error=1e-09 was not met with \d+ products: .* larger num_matvecs"):
        spectrum = estimate_spectrum(operator, num_matvecs=500, target_error=1e-9, alpha=1.5)
    rounds = [100, 200, 400]
    assert operator.products == spectrum.num_matvecs <= 500
    # The deep run is made once, the shallow ones in each round.
    shallow = sum(sum(probe_plan(size)) for size in rounds)
    assert spectrum.num_matvecs == rounds[-1] - sum(probe_plan(rounds[-1])) + shallow


def test_target_error_may_be_met_by_the_exact_spectrum(matrix):
    operator = Counting(matrix)
    spectrum = estimate_spectrum(operator, target_error=1e-9, alpha=1.5)
    assert spectrum.is_exact
    assert operator.products == spectrum.num_matvecs <= 2000
    np.testing.assert_allclose(spectrum.nodes, OUTLIERS, atol=1e-12)


def test_no_number_of_products_removes_rounding_errors():
    noisy = torch.diag(torch.cat([torch.linspace(0.1, 1, 100), torch.linspace(1e-9, 1e-8, 2900)]))  # single precision
    with pytest.warns(UserWarning, match="rounding hides small eigenvalues: use double precision"):
        spectrum = estimate_spectrum(noisy, target_error=0.01, alpha=0.1)
    assert spectrum.num_matvecs == 100


@pytest.mark.parametrize("num_matvecs", [400, 10_000])
def test_budget_of_n_products_gives_the_exact_spectrum(matrix, num_matvecs):
    operator = Counting(matrix)
    spectrum = estimate_spectrum(operator, num_matvecs=num_matvecs)
    np.testing.assert_allclose(spectrum.nodes, OUTLIERS, atol=1e-12)
    assert spectrum.is_exact
    assert operator.products == 400


def test_same_seed_same_spectrum_and_global_random_state_is_untouched(matrix):
    state = torch.get_rng_state()
    first, again, other = (estimate_spectrum(matrix, num_matvecs=60, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.nodes, again.nodes)
    np.testing.assert_array_equal(first.weights, again.weights)
    assert float(first.trace) == float(again.trace) != float(other.trace)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_kind_of_operator_gives_the_same_spectrum(matrix):
    expected = estimate_spectrum(matrix, num_matvecs=100).renyi_entropy(1.5).value
    for operator in (matrix.numpy(), scipy.sparse.linalg.aslinearoperator(matrix.numpy()), MatrixOperator(matrix)):
        found = estimate_spectrum(operator, num_matvecs=100).renyi_entropy(1.5).value
        assert found == pytest.approx(expected, abs=1e-8)


def test_curvlinops_operator_gives_the_same_spectrum():
    model = models.mlp(6, 10, 4, activation="tanh").double()
    x, y = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)).double(), torch.arange(30) % 4
    loss = nn.CrossEntropyLoss()
    foreign = curvlinops.HessianLinearOperator(model, loss, list(model.parameters()), [(x, y)])
    own = HessianOperator(model, loss, (x, y))
    found, expected = (
        estimate_spectrum(operator, num_matvecs=40).renyi_entropy(2).value for operator in (foreign, own)
    )
    assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_entropy_of_a_trained_network_is_within_five_hundredths_of_a_nat(trained, seed):
    H, exact = trained
    spectrum = estimate_spectrum(H, num_matvecs=200, seed=seed)
    for alpha in ALPHAS:
        assert spectrum.renyi_entropy(alpha).value == pytest.approx(exact.renyi_entropy(alpha).value, abs=0.05)
    assert spectrum.max_eigenvalue == pytest.approx(exact.max_eigenvalue, rel=1e-6)


@pytest.fixture(scope="module", params=[60, 200])
def many_estimates(request, matrix):
    return [estimate_spectrum(matrix, num_matvecs=request.param, seed=seed) for seed in range(20)]


@pytest.mark.slow
@few_products
@pytest.mark.parametrize("quantity", ["trace", "H_0.5", "H_1", "H_2"])
def test_three_standard_errors_cover_the_truth(matrix, many_estimates, quantity):
    def measured(spectrum):
        return spectrum.trace if quantity == "trace" else spectrum.renyi_entropy(float(quantity[2:]))

    truth, estimates = float(measured(exact_spectrum(matrix))), [measured(spectrum) for spectrum in many_estimates]
    scores = np.array([(float(estimate) - truth) / estimate.standard_error for estimate in estimates])
    assert (np.abs(scores) < 3).mean() >= 0.9
    assert np.abs(scores).max() > 0.2  # informative standard errors, not just large ones


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", ["repeated", "low rank", "identity", "negative", "indefinite"])
def test_special_spectra_are_estimated_within_their_errors(shape, seed):
    values = {
        "repeated": np.repeat([1.0, 3.0, 50.0], [200, 90, 10]),
        "low rank": np.concatenate([np.zeros(290), np.arange(1.0, 11.0)]),
        "identity": np.ones(300),
        "negative": -np.geomspace(1e-4, 1, 300),
        "indefinite": np.linspace(-1, 1.5, 300),
    }[shape]
    exact = exact_spectrum(matrix_with_spectrum(values))
    spectrum = estimate_spectrum(matrix_with_spectrum(values), num_matvecs=160, seed=seed)
    for alpha in (0.5, *ALPHAS):
        entropy = spectrum.renyi_entropy(alpha)
        error = abs(entropy.value - exact.renyi_entropy(alpha).value)
        assert error <= 4 * entropy.standard_error + 1e-6
        assert error < 0.2


def test_zero_matrix_has_trace_zero():
    assert float(estimate_spectrum(ZEROS, num_matvecs=10).trace) == 0


def test_single_precision_agrees_with_double(matrix):
    single, double = (
        estimate_spectrum(A, num_matvecs=100, seed=3).renyi_entropy(2).value for A in (matrix.float(), matrix)
    )
    assert single == pytest.approx(double, abs=1e-4)


NOT_FINITE = scipy.sparse.linalg.LinearOperator((30, 30), matvec=lambda v: v * np.nan, dtype=float)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda A: estimate_spectrum(A, num_matvecs=0), ValueError, "num_matvecs must be at least 1, got 0"),
        (lambda A: estimate_spectrum(A, num_matvecs=10.5), TypeError, "num_matvecs must be an integer"),
        (lambda A: estimate_spectrum(A, target_error=0.1), ValueError, "target_error and alpha belong together"),
        (lambda A: estimate_spectrum(A, alpha=2.0), ValueError, "target_error and alpha belong together"),
        (
            lambda A: estimate_spectrum(A, target_error=0, alpha=2.0),
            ValueError,
            r"target_error must lie in \(0, inf\), got 0",
        ),
        (lambda A: estimate_spectrum(A, target_error=1, alpha=0), ValueError, "alpha=0 counts non-zero eigenvalues"),
        (lambda A: estimate_spectrum(A, target_error=1, alpha=-1), ValueError, r"alpha must lie in \[0, inf\], got -1"),
        (lambda A: estimate_spectrum(A, num_matvecs=20, seed=-1), ValueError, "seed must be at least 0"),
        (lambda A: estimate_spectrum([1.0]), TypeError, r"operator must have \.shape"),
        (lambda A: estimate_spectrum(torch.tensor([[1.0, 2.0], [0.0, 1.0]])), ValueError, "matrix must be symmetric"),
        (lambda A: estimate_spectrum(NOT_FINITE, num_matvecs=5), ValueError, r"not finite\. Likely causes"),
        (lambda A: estimate_spectrum(ZEROS, num_matvecs=10).renyi_entropy(2), ValueError, "all zero"),
    ],
)
def test_errors_name_the_argument_before_any_product(matrix, call, error, message):
    operator = Counting(matrix)
    with pytest.raises(error, match=message):
        call(operator)
    assert operator.products == 0
