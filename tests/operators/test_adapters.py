"""What `as_operator` makes of other libraries' matrices and operators: right values, or a refusal with the fix."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from renyi_lab.krylov import hutchinson_trace, lanczos, power_iteration
from renyi_lab.operators import MatrixOperator, as_operator, matrix_with_spectrum
from renyi_lab.spectrum import Spectrum, estimate_spectrum, exact_spectrum

N = 40
A = matrix_with_spectrum(np.linspace(-2, 5, N))
TRIDIAGONAL = scipy.sparse.diags([np.ones(N - 1), np.arange(N), np.ones(N - 1)], offsets=[-1, 0, 1])


class Operator:
    """The minimal interface around a function."""

    shape, device = (N, N), torch.device("cpu")

    def __init__(self, product, dtype=torch.float64):
        self.product, self.dtype, self.num_calls = product, dtype, 0

    def __matmul__(self, vector):
        self.num_calls += 1
        return self.product(vector)


def scipy_operator(matvec, dtype=np.float64):
    return scipy.sparse.linalg.LinearOperator((N, N), matvec=matvec, dtype=dtype)


def perturbed(entry):
    """A, with one entry of it changed."""
    matrix = A.clone()
    matrix[3, 7] += entry
    return matrix


# ---------------------------------------------------------------- matrices

SPARSE = {
    "torch COO": lambda matrix: matrix.to_sparse(),
    "torch CSR": lambda matrix: matrix.to_sparse_csr(),
    "torch CSC": lambda matrix: matrix.to_sparse_csc(),
    "torch BSR": lambda matrix: matrix.to_sparse_bsr((2, 2)),
    "SciPy CSR": lambda matrix: scipy.sparse.csr_matrix(matrix.numpy()),
    "SciPy COO array": lambda matrix: scipy.sparse.coo_array(matrix.numpy()),
    "SciPy DIA": lambda matrix: scipy.sparse.dia_matrix(matrix.numpy()),
    "SciPy integers": lambda matrix: scipy.sparse.csr_array(matrix.numpy().astype(int)),
}


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*beta state")
@pytest.mark.parametrize("kind", SPARSE)
def test_sparse_matrices_have_the_products_of_the_dense_ones(kind):
    dense = torch.from_numpy(TRIDIAGONAL.toarray())
    operator = as_operator(SPARSE[kind](dense))
    V = torch.randn(N, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(operator @ V[:, 0], dense @ V[:, 0])
    torch.testing.assert_close(operator @ V, dense @ V)
    torch.testing.assert_close(operator.to_dense(), dense)
    np.testing.assert_allclose(exact_spectrum(operator).nodes, torch.linalg.eigvalsh(dense), atol=1e-12)
    for wrong, match in [(perturbed(0.5), "must be symmetric"), (A * np.nan, "holds NaN")]:
        if "integers" not in kind:
            with pytest.raises(ValueError, match=match):
                as_operator(SPARSE[kind](wrong))


def test_duplicate_entries_of_a_sparse_matrix_are_added():
    indices, values = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 1]]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    operator = as_operator(torch.sparse_coo_tensor(indices, values, (2, 2), check_invariants=True))
    assert operator.to_dense().tolist() == [[0, 3], [3, 4]]


def test_an_empty_sparse_matrix_is_zero():
    assert as_operator(torch.zeros(3, 3).to_sparse()).to_dense().tolist() == [[0, 0, 0]] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_matrices_are_raised_to_single_precision(dtype):
    values = torch.logspace(-3, 0, 500, dtype=torch.float64).to(dtype)
    operator = as_operator(torch.diag(values))
    assert operator.dtype == torch.float32
    assert torch.equal(operator @ torch.ones(500), values.float())
    estimate = estimate_spectrum(torch.diag(values), num_matvecs=100).renyi_entropy(1.0)
    exact = Spectrum.from_eigenvalues(values.double()).renyi_entropy(1.0)
    assert abs(estimate.value - exact.value) < 4 * estimate.standard_error


def test_half_precision_is_symmetric_up_to_one_rounding_and_no_more():
    B = torch.randn(60, 20, generator=torch.Generator().manual_seed(0))
    rounded = (B @ B.T).bfloat16()
    rounded[0, 1] *= 1.0078125  # the next number
    matrix = as_operator(rounded).to_dense()
    assert torch.equal(matrix, matrix.T)
    rounded[0, 1] += 0.5 * rounded.abs().max()
    with pytest.raises(ValueError, match="must be symmetric"):
        as_operator(rounded)


def test_rounding_of_a_numpy_matrix_is_judged_by_its_own_precision():
    matrix = A.numpy().astype(np.float32)
    matrix[0, 1] *= 1 + 1e-6
    operator = as_operator(matrix)
    assert operator.dtype == torch.float64
    assert torch.equal(operator.to_dense(), operator.to_dense().T)
    np.testing.assert_allclose(operator.to_dense(), A, atol=1e-6)


def test_a_data_frame_is_a_matrix():
    assert torch.equal(as_operator(pd.DataFrame(A.numpy())).to_dense(), A)


# ---------------------------------------------------------------- operators


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_vectors_and_single_columns_are_products(shape):
    for operator in (Operator(lambda v: (A @ v).reshape(shape)), scipy_operator(lambda v: A.numpy() @ v.reshape(-1))):
        torch.testing.assert_close(as_operator(operator) @ A[0], A @ A[0])


def test_a_scipy_operator_in_single_precision_has_products_in_single_precision():
    matrix = A.numpy().astype(np.float32)
    operator = as_operator(scipy_operator(lambda v: matrix @ v, np.float32))
    assert operator.dtype == torch.float32
    torch.testing.assert_close(operator @ A[0], (A @ A[0]).float())


def test_a_wider_product_than_declared_is_rounded():
    product = as_operator(Operator(lambda v: A @ v.double(), torch.float32)) @ A[0]
    torch.testing.assert_close(product, (A @ A[0]).float())


def test_products_only_are_spent_on_the_check_of_symmetry():
    foreign = Operator(lambda v: A @ v)
    spectrum = estimate_spectrum(foreign, num_matvecs=20)
    assert foreign.num_calls == spectrum.num_matvecs == 20
    assert not spectrum.is_exact


@pytest.mark.parametrize("entry", [0.5, -0.05])
@pytest.mark.parametrize(
    "algorithm",
    [
        lambda operator: estimate_spectrum(operator, num_matvecs=20),
        lambda operator: estimate_spectrum(operator, num_matvecs=N),
        exact_spectrum,
        lambda operator: lanczos(operator, num_steps=10),
        lambda operator: power_iteration(operator, num_matvecs=10),
        lambda operator: hutchinson_trace(operator, num_matvecs=10),
        lambda operator: as_operator(operator).to_dense(),
        lambda operator: as_operator(operator) @ torch.randn(N, 8, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["estimate", "all products", "exact", "lanczos", "power", "hutchinson", "dense", "columns"],
)
def test_a_single_entry_that_breaks_symmetry_is_noticed(algorithm, entry):
    matrix = perturbed(entry)
    for operator in (Operator(lambda v: matrix @ v), scipy_operator(lambda v: matrix.numpy() @ v)):
        with pytest.raises(ValueError, match=r"the operator is not symmetric.*\(A \+ A.T\) / 2"):
            algorithm(operator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
def test_rounding_and_steep_spectra_are_not_taken_for_asymmetry(dtype, scale):
    matrix = scale * matrix_with_spectrum(np.geomspace(1e-12, 1, 300)).to(dtype)
    noise = 10 * torch.finfo(dtype).eps * scale * torch.randn(300, generator=torch.Generator().manual_seed(0)).to(dtype)
    foreign = Operator(lambda v: matrix @ v + noise * v.norm(), dtype)
    foreign.shape = (300, 300)
    assert estimate_spectrum(foreign, num_matvecs=60).num_matvecs == 60
    assert as_operator(foreign).to_dense().shape == (300, 300)


def test_a_zero_operator_is_symmetric():
    assert exact_spectrum(Operator(lambda v: 0 * v)).nodes.tolist() == [0.0] * N


class HalfPrecision(Operator):
    def __init__(self, dtype):
        super().__init__(lambda v: v, dtype)


MESSAGES = [
    (lambda: as_operator(Operator(lambda v: (v @ v).reshape(1))) @ A[0], ValueError, r"shape \(40,\) .* got \(1,\)"),
    (lambda: as_operator(Operator(lambda v: v @ v)) @ A[0], ValueError, r"shape \(40,\) .* got \(\)"),
    (lambda: as_operator(Operator(lambda v: torch.outer(v, v))) @ A[0], ValueError, r"got \(40, 40\)"),
    (lambda: as_operator(Operator(lambda v: v[:-1])) @ A[0], ValueError, r"got \(39,\)"),
    (lambda: as_operator(Operator(lambda v: 1j * v)) @ A[0], TypeError, "real floating-point numbers, got torch.compl"),
    (lambda: as_operator(Operator(lambda v: v.long())) @ A[0], TypeError, "real floating-point numbers, got torch.int"),
    (lambda: as_operator(Operator(lambda v: v * np.nan)) @ A[0], ValueError, "not finite. Likely causes"),
    (lambda: as_operator(Operator(lambda v: v.numpy())) @ A[0], TypeError, "must return a torch tensor.*got ndarray"),
    (lambda: as_operator(Operator(lambda v: None)) @ A[0], TypeError, "must return a torch tensor.*got NoneType"),
    (lambda: as_operator(Operator(lambda v: None, None)) @ A[0], TypeError, "an array of numbers, got NoneType"),
    (lambda: as_operator(Operator(lambda v: v.float())) @ A[0], TypeError, "Declare the operator's dtype"),
    (
        lambda: as_operator(scipy_operator(lambda v: v.astype(np.float32))) @ A[0],
        TypeError,
        "Declare the operator's dtype as torch.float32, or compute in torch.float64",
    ),
    (lambda: as_operator(HalfPrecision(torch.float16)), TypeError, "half precision .*give it dtype float32 or float64"),
    (lambda: as_operator(HalfPrecision(torch.bfloat16)), TypeError, "half precision"),
    (lambda: as_operator(HalfPrecision(np.float16)), TypeError, "half precision"),
    (lambda: as_operator(HalfPrecision(torch.int64)), TypeError, "must have a floating-point dtype, got torch.int64"),
    (lambda: as_operator(HalfPrecision(np.dtype(object))), TypeError, "must have a floating-point dtype, got object"),
    (lambda: as_operator(np.ma.masked_array(np.eye(2))), TypeError, r"masked array.*filled\(0\)"),
    (
        lambda: as_operator(scipy.sparse.csr_array(np.eye(2) * 1j)),
        TypeError,
        "must hold real numbers, got dtype complex128",
    ),
    (lambda: as_operator(torch.eye(2, dtype=torch.complex64).to_sparse()), TypeError, "must hold real"),
    (lambda: as_operator(torch.ones(2, 3).to_sparse()), ValueError, r"matrix must be square .*got shape \(2, 3\)"),
    (lambda: as_operator(torch.eye(2, device="meta")), ValueError, "on the meta device"),
    (
        lambda: MatrixOperator(scipy.sparse.csr_array(np.eye(2))),
        TypeError,
        "use as_operator for other libraries' matrices",
    ),
    (lambda: Spectrum.from_eigenvalues(A), ValueError, r"shape \(40, 40\).*exact_spectrum\(matrix\)"),
    (lambda: Spectrum.from_eigenvalues([[1.0, 2.0]]), ValueError, r"eigenvalues must be a vector .* shape \(1, 2\)"),
]


@pytest.mark.parametrize(("call", "error", "match"), MESSAGES)
def test_messages(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.filterwarnings("ignore:.*prototype stage")
def test_nested_tensors_are_refused():
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(2)])
    with pytest.raises(TypeError, match="got a nested tensor"):
        as_operator(nested)
