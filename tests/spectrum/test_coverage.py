"""A slice of ``tests/benchmarks/coverage.py``: do standard errors hold over a dozen families of known spectra?

Each family is estimated six times in single and six times in double precision, and errors are compared with two
standard errors. If these are right, an error exceeds them with a probability of at most 5 %. Then one of the families
fails with a probability below 6e-4 (half of its twelve estimates outside, at one of four orders), and the test over all
families with one below 2e-3 (an eighth of the 144 estimates outside). Seeds are fixed: a failure repeats itself.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from renyi_lab.spectrum import Spectrum, estimate_spectrum

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]  # few products are warned of

SPECTRA = Path(__file__).parents[1] / "benchmarks" / "_spectra.py"
FAMILIES = (
    "k^-1",
    "k^-3",
    "exp(-k/50)",
    "10 copies of k^-2",
    "5 copies of spikes + Marchenko-Pastur",
    "10 copies of k^-1.2, 0.0001 apart",
    "GOE, spikes",
    "rank 30",
    "network-like",
    "lognormal",
    "tanh MLP, Brier score",
    "last layer, squared error",
)
NUM_MATVECS, NUM_SEEDS = 100, 6
ALPHAS = (0.5, 1.0, 1.5, 2.0)


@pytest.fixture(scope="module")
def spectra():
    """The module of the benchmark, with all families by name."""
    spec = importlib.util.spec_from_file_location("_spectra", SPECTRA)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.by_name = {name: values for group in module.families().values() for name, values in group.items()}
    return module


@pytest.fixture(scope="module")
def scores(spectra):
    """Family → |error| in standard errors, ``(12, orders)``; each is computed when it is first asked for."""
    known = {}

    def of(family):
        if family not in known:
            runs = [(family, dtype, seed) for dtype in spectra.DTYPES for seed in range(NUM_SEEDS)]
            known[family] = np.array([score(spectra, *run) for run in runs])
        return known[family]

    return of


def score(spectra, family, dtype, seed):
    operator = spectra.KnownSpectrum(spectra.by_name[family], dtype)
    spectrum = estimate_spectrum(operator, num_matvecs=NUM_MATVECS, seed=spectra.seed_of(family, dtype, seed))
    assert operator.num_matvecs <= NUM_MATVECS
    estimates = [spectrum.renyi_entropy(alpha) for alpha in ALPHAS]
    errors = [abs(e.value - operator.entropy(alpha)) for e, alpha in zip(estimates, ALPHAS, strict=True)]
    return [
        error / max(estimate.standard_error, 1e-300) if error > operator.resolution else 0.0
        for error, estimate in zip(errors, estimates, strict=True)
    ]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
def test_products_are_those_of_a_symmetric_matrix_with_the_known_eigenvalues(spectra, dtype, tolerance):
    known = np.concatenate([[-2.0, 0.0, 0.0, 5.0, 5.0], np.geomspace(1e-3, 1, 40)])
    operator = spectra.KnownSpectrum(known, dtype)
    dense = operator.to_dense().double().numpy()
    np.testing.assert_allclose(dense, dense.T, atol=tolerance)
    np.testing.assert_allclose(np.linalg.eigvalsh(dense), np.sort(known), atol=tolerance)
    assert np.abs(dense - np.diag(np.diag(dense))).max() > 0.1
    for alpha in (0.25, 1.0, 2.0, np.inf):
        exact = Spectrum.from_eigenvalues(operator.eigenvalues).renyi_entropy(alpha).value
        assert operator.entropy(alpha) == pytest.approx(exact, abs=1e-12)


def test_families_are_as_many_and_as_large_as_promised(spectra):
    assert len(spectra.by_name) == sum(map(len, spectra.families().values())) > 50
    assert {1500 <= len(values) <= 7000 and np.isfinite(values).all() for values in spectra.by_name.values()} == {True}
    assert len(spectra.families()[spectra.TRAINED]) >= 4


@pytest.mark.parametrize("family", ["last layer, squared error", "wide last layer, squared error"])
def test_eigenvalues_of_a_last_layer_under_squared_error_occur_once_for_each_class(spectra, family):
    copies = np.sort(spectra.by_name[family]).reshape(-1, 10)
    np.testing.assert_allclose(copies, copies[:, :1].repeat(10, axis=1), rtol=1e-6)
    assert (np.diff(copies[:, 0]) > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_of_a_family_are_within_two_standard_errors(scores, family):
    found = scores(family)
    assert (found > 2).sum(axis=0).max() < len(found) / 2
    assert found.max() < 5


def test_errors_of_all_families_are_as_large_as_standard_errors_say(scores):
    found = np.concatenate([scores(family) for family in FAMILIES])
    assert (found > 2).mean(axis=0).max() < 1 / 8
    assert np.sqrt((found**2).mean(axis=0)).min() > 0.3  # standard errors are not just large
