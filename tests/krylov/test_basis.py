"""Where Lanczos vectors are kept, and what that does to them."""

import pytest
import torch

from renyi_lab import estimate_spectrum
from renyi_lab.krylov import Basis, Storage, Subspace, lanczos, lanczos_steps
from renyi_lab.operators import LinearOperator, MatrixOperator, matrix_with_spectrum

pytestmark = pytest.mark.filterwarnings("ignore:the entropy of order")  # errors are large on purpose
K = torch.arange(1, 3001, dtype=torch.float64)


class Diagonal(LinearOperator):
    _checks_symmetry = False

    def __init__(self, values):
        super().__init__(len(values), values.dtype, values.device)
        self.values = values

    def _matvec(self, vector):
        return self.values * vector


def entropies(spectrum):
    return torch.tensor([spectrum.renyi_entropy(alpha).value for alpha in (0.5, 1.0, 1.5, 2.0)])


def test_a_basis_in_the_hosts_memory_is_the_same():
    operator = Diagonal(1 / K)
    options = [{}, {"basis": "cpu"}, {"reorthogonalize": "full", "basis_dtype": torch.float64}]
    first, *others = [entropies(estimate_spectrum(operator, num_matvecs=60, **option)) for option in options]
    assert all(torch.equal(first, other) for other in others)


def test_single_precision_vectors_of_a_double_precision_operator():
    operator = Diagonal(1 / K)
    rounded = lanczos(operator, num_steps=60, basis_dtype=torch.float32)
    exact = lanczos(operator, num_steps=60)
    assert rounded.basis.dtype == torch.float32
    assert torch.allclose(torch.tensor(rounded.ritz_values), torch.tensor(exact.ritz_values), rtol=0, atol=1e-9)
    Q = rounded.ritz_vectors()
    assert Q.dtype == torch.float64
    assert (Q @ Q.T - torch.eye(60)).abs().max() < 1e-6


@pytest.mark.parametrize("num_matvecs", [60, 200])
def test_bfloat16_vectors_stay_orthogonal_enough_for_the_stated_errors(num_matvecs):
    values = torch.cat([torch.linspace(5, 50, 10), 0.01 * torch.rand(2990, generator=torch.Generator().manual_seed(0))])
    run = lanczos(Diagonal(values), num_steps=num_matvecs, basis_dtype=torch.bfloat16)
    assert run.basis.element_size() == 2
    assert (run.ritz_values > 1).sum() == 10  # no ghosts of the large ones
    truth = entropies(estimate_spectrum(values.double().diag(), num_matvecs=3000))
    spectrum = estimate_spectrum(Diagonal(values), num_matvecs=num_matvecs, basis_dtype=torch.bfloat16)
    errors = torch.tensor([spectrum.renyi_entropy(alpha).standard_error for alpha in (0.5, 1.0, 1.5, 2.0)])
    assert ((entropies(spectrum) - truth).abs() < 4 * errors).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [1.0, 1.5])
@pytest.mark.parametrize("num_matvecs", [60, 200])
def test_without_reorthogonalization_errors_are_larger_and_stated(dtype, power, num_matvecs):
    operator = Diagonal((K**-power).to(dtype))
    truth = entropies(estimate_spectrum((K**-power).diag(), num_matvecs=3000))
    scores = []
    for seed in range(3):
        spectrum = estimate_spectrum(operator, num_matvecs=num_matvecs, seed=seed, reorthogonalize="none")
        errors = [spectrum.renyi_entropy(alpha).standard_error for alpha in (0.5, 1.0, 1.5, 2.0)]
        scores.append((entropies(spectrum) - truth) / torch.tensor(errors))
    assert torch.stack(scores).abs().max() < 4
    assert max(errors) > 0.01  # the trace is not improved by counting


def test_without_reorthogonalization_ghosts_are_one_node():
    values = torch.cat([torch.tensor([100.0, 10.0]), torch.rand(998, generator=torch.Generator().manual_seed(0))])
    plain = lanczos(Diagonal(values), num_steps=150, reorthogonalize="none")
    assert (plain.ritz_values > 50).sum() > 1
    spectrum = estimate_spectrum(Diagonal(values), num_matvecs=200, reorthogonalize="none")
    last = spectrum.sampling.last
    assert (last.nodes > 50).sum() == 1


def test_no_vectors_are_kept_without_a_basis():
    run = lanczos(Diagonal(1 / K), num_steps=5, reorthogonalize="none", basis=None)
    assert run.vectors is None
    with pytest.raises(ValueError, match="not kept"):
        _ = run.basis


def test_projections_on_combinations_are_those_of_the_rows():
    operator = MatrixOperator(matrix_with_spectrum(K[:40].numpy()))
    run = lanczos(operator, num_steps=12)
    coefficients = run.eigenvectors[:, :3].T
    rows = torch.randn(2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    Q = torch.from_numpy(coefficients.copy()) @ run.basis
    subspace = Subspace(run.vectors, coefficients)
    torch.testing.assert_close(subspace.remove_from(rows), rows - rows @ Q.T @ Q)
    torch.testing.assert_close(subspace.leading(1).remove_from(rows[0]), rows[0] - rows[0] @ Q[:1].T @ Q[:1])
    assert torch.equal(subspace.leading(0).remove_from(rows), rows)


def test_memory_grows_with_the_vectors():
    basis = Basis(Diagonal(K), 2)
    for step in range(9):
        basis.append(torch.full_like(K, step))
    assert basis.rows[:, 0].tolist() == list(range(9))
    assert len(basis.leading(4).rows) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"basis": "gpu"}, "basis must be one of"),
        ({"basis": "sharded"}, "process_group"),
        ({"basis_dtype": torch.float16}, "basis_dtype must be torch.bfloat16"),
        ({"basis_dtype": torch.complex64}, "basis_dtype must be torch.bfloat16"),
        ({"basis_dtype": "bfloat16"}, "basis_dtype must be a dtype"),
        ({"reorthogonalize": "some"}, "reorthogonalize must be one of"),
    ],
)
def test_bad_arguments(options, message):
    for call in (lanczos, estimate_spectrum):
        name = "num_steps" if call is lanczos else "num_matvecs"
        with pytest.raises((ValueError, TypeError), match=message):
            call(Diagonal(K.float()), **{name: 10, **options})


def test_a_wider_basis_than_the_operator_is_refused():
    with pytest.raises(ValueError, match="no wider"):
        lanczos(Diagonal(K.float()), num_steps=3, basis_dtype=torch.float64)


def test_a_basis_is_needed_for_reorthogonalization():
    with pytest.raises(ValueError, match="reorthogonalize"):
        next(lanczos_steps(Diagonal(K), basis=None))


def test_a_basis_that_does_not_fit_names_its_size_and_what_fits(monkeypatch):
    monkeypatch.setattr("renyi_lab.krylov._basis.free_bytes", lambda device: 1_000_000)
    with pytest.raises(ValueError, match=r"45 vectors of 3,000 entries takes 1.08 MB, but 1 MB are free") as caught:
        estimate_spectrum(Diagonal(K), num_matvecs=60)
    assert "basis_dtype=torch.bfloat16" in str(caught.value)
    assert 'reorthogonalize="none"' in str(caught.value)
    assert 'basis="cpu"' not in str(caught.value)
    assert estimate_spectrum(Diagonal(K), num_matvecs=60, basis_dtype=torch.bfloat16).num_matvecs == 60


def test_memory_of_a_stored_basis():
    operator = Diagonal(K)
    assert Storage().num_bytes(operator, 10) == 10 * 3000 * 8
    assert Storage("cpu", torch.bfloat16).num_bytes(operator, 10) == 10 * 3000 * 2
