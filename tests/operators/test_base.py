import curvlinops
import numpy as np
import pytest
import scipy
import scipy.sparse
import scipy.sparse.linalg
import torch
from packaging.version import Version
from torch import nn

from renyi_lab import operators
from renyi_lab.krylov import lanczos
from renyi_lab.operators import LinearOperator, MatrixOperator, as_operator, matrix_with_spectrum

A = matrix_with_spectrum(np.linspace(-2, 5, 30))


class TorchOperator:
    """The minimal interface."""

    shape, dtype, device = (30, 30), torch.float64, torch.device("cpu")

    def __matmul__(self, vector):
        assert vector.ndim == 1
        return A @ vector


FOREIGN = {
    "torch matrix": A,
    "numpy matrix": A.numpy(),
    "read-only numpy matrix": np.broadcast_to(A.numpy(), (30, 30)),
    "numpy view in reverse": A.flip(0, 1).numpy()[::-1, ::-1],
    "scipy operator": scipy.sparse.linalg.aslinearoperator(A.numpy()),
    "scipy sparse matrix": scipy.sparse.csr_matrix(A.numpy()),
    "torch operator": TorchOperator(),
    "own operator": MatrixOperator(A),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_everything_with_shape_and_product_is_adapted(kind):
    operator = as_operator(FOREIGN[kind])
    v, V = torch.randn(30, dtype=torch.float64), torch.randn(30, 3, dtype=torch.float64)
    assert operator.shape == (30, 30)
    torch.testing.assert_close(operator @ v, A @ v)
    torch.testing.assert_close(operator @ V, A @ V)
    torch.testing.assert_close(operator.to_dense(), A)


def test_curvlinops_operator_is_adapted():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2).double(), torch.randn(5, 3).double()
    y = torch.randn(5, 2).double()
    foreign = curvlinops.HessianLinearOperator(
        model, nn.MSELoss(), list(model.parameters()), [(x, y)], check_deterministic=False
    )
    operator = as_operator(foreign)
    v = torch.randn(8).double()
    torch.testing.assert_close(operator @ v, foreign @ v)
    assert (operator @ v).abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rounding_error_of_a_product_is_that_of_the_dtype(dtype):
    assert MatrixOperator(A.to(dtype)).eps == torch.finfo(dtype).eps


def test_products_are_counted_column_by_column():
    operator = MatrixOperator(A)
    _ = operator @ torch.ones(30), operator @ torch.ones(30, 4)
    assert operator.num_matvecs == 5
    operator.to_dense()
    assert operator.num_matvecs == 35


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_to_dense_does_not_depend_on_the_scale_in_single_precision(scale):
    matrix = matrix_with_spectrum([1.0, 2.0, 3.0]).float() * scale
    foreign = as_operator(scipy_operator((matrix + 1e-7 * scale * torch.ones(3, 3).triu()).numpy()))
    torch.testing.assert_close(foreign.to_dense() / scale, matrix / scale)


def test_to_dense_works_past_one_chunk_of_columns():
    matrix = torch.diag(torch.arange(300.0))
    assert torch.equal(MatrixOperator(matrix).to_dense(), matrix)


class Doubled(MatrixOperator):
    """Products that are not those of its entries."""

    def _matmat(self, vectors):
        return 2 * super()._matmat(vectors)


@pytest.mark.parametrize("matrix", [A, A.float(), A.to_sparse()])
def test_the_entries_of_a_matrix_need_no_products(matrix):
    operator = MatrixOperator(matrix)
    dense = operator.to_dense()
    assert dense.dtype == matrix.dtype
    assert torch.equal(dense, matrix.to_dense())
    assert operator.num_matvecs == 30  # as for every other operator
    dense.zero_()  # a copy
    assert torch.equal(operator.to_dense(), matrix.to_dense())
    assert torch.equal(Doubled(matrix).to_dense(), 2 * matrix.to_dense())


def test_result_has_the_dtype_of_the_operator_and_no_graph():
    operator = MatrixOperator(A.float().requires_grad_())
    for v in (torch.ones(30, dtype=torch.float64, requires_grad=True), torch.ones(30, dtype=torch.int64)):
        product = operator @ v
        assert product.dtype == torch.float32
        assert not product.requires_grad
    assert lanczos(operator, num_steps=3).num_steps == 3


def test_no_columns_give_no_columns():
    assert (MatrixOperator(A) @ torch.ones(30, 0)).shape == (30, 0)


def test_foreign_operator_cannot_reach_the_operand_nor_change_an_earlier_product():
    buffer = np.zeros(3)

    def overwriting(v):
        buffer[:] = 2 * v.reshape(-1)
        v[...] = -1
        return buffer

    operator = as_operator(scipy.sparse.linalg.LinearOperator((3, 3), matvec=overwriting, dtype=float))
    v = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    first = operator @ v
    _ = operator @ torch.zeros(3, dtype=torch.float64)
    assert v.tolist() == [1, 2, 3]
    assert first.tolist() == [2, 4, 6]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scipy_finds_the_top_eigenvalues(dtype):
    operator = MatrixOperator(A.to(dtype))
    found = scipy.sparse.linalg.eigsh(operator.to_scipy(), k=3, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), np.linspace(-2, 5, 30)[-3:], rtol=1e-5)
    assert operator.num_matvecs > 3


def test_scipy_form_takes_vectors_columns_and_the_adjoint():
    form = MatrixOperator(A).to_scipy()
    v, V = np.arange(30), np.ones((30, 2))
    for product, expected in [
        (form @ v, A.numpy() @ v),
        (form @ V, A.numpy() @ V),
        (form.T @ V, A.numpy() @ V),
        (form.matmat(v[:, None]), A.numpy() @ v[:, None]),
        (form.rmatmat(V), A.numpy() @ V),
        (form.rmatmat(V[:, :0]), V[:, :0]),
        (form.matvec(v), A.numpy() @ v),
        (form.rmatvec(v), A.numpy() @ v),
    ]:
        assert product.dtype == np.float64
        np.testing.assert_allclose(product, expected, atol=1e-12)


SCIPY_TAKES_ROWS = Version(scipy.__version__) >= Version("1.18")


@pytest.mark.skipif(Version(scipy.__version__) >= Version("1.20"), reason="SciPy refuses columns since 1.20")
@pytest.mark.filterwarnings("ignore:Calling `r?matvec` on 'column vectors':FutureWarning")
@pytest.mark.parametrize("name", ["matvec", "rmatvec"])
def test_scipy_form_takes_one_column_as_a_vector(name):
    v = np.arange(30)[:, None]
    product = getattr(MatrixOperator(A).to_scipy(), name)(v)
    np.testing.assert_allclose(product, A.numpy() @ v, atol=1e-12)


@pytest.mark.skipif(not SCIPY_TAKES_ROWS, reason="SciPy takes several vectors, one a row, since 1.18")
@pytest.mark.parametrize("shape", [(1, 30), (3, 30), (30, 30), (2, 3, 30), (0, 30)])
@pytest.mark.parametrize("name", ["matvec", "rmatvec"])
def test_scipy_form_takes_several_vectors_as_rows(name, shape):
    rows = np.random.default_rng(0).normal(size=shape)
    product = getattr(MatrixOperator(A).to_scipy(), name)(rows)
    np.testing.assert_allclose(product, rows @ A.numpy(), atol=1e-12)


def test_rounding_is_not_asymmetry():
    B = torch.randn(200, 50)
    as_operator(B @ B.T * 1e20)


def test_a_refused_operand_is_not_counted():
    operator = MatrixOperator(A)
    with pytest.raises(ValueError, match="must have shape"):
        operator @ torch.ones(29)
    assert operator.num_matvecs == 0


class ComplexTorchOperator(TorchOperator):
    dtype = torch.complex128


class WrongShape(LinearOperator):
    def _matvec(self, vector):
        return vector[:1]


class NotSymmetric(LinearOperator):
    def _matvec(self, vector):
        return torch.arange(9.0).view(3, 3) @ vector


class Large(LinearOperator):
    def _matvec(self, vector):
        raise AssertionError


def scipy_operator(matrix):
    return scipy.sparse.linalg.aslinearoperator(matrix)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: MatrixOperator(A) @ np.ones(30),
            TypeError,
            "must be a torch tensor, got ndarray; use torch.from_nump",
        ),
        (lambda: MatrixOperator(A) @ torch.ones(29), ValueError, r"must have shape \(30,\) or \(30, k\), got \(29,\)"),
        (lambda: MatrixOperator(A) @ torch.ones(1, 30), ValueError, r"got \(1, 30\)"),
        (lambda: MatrixOperator(A) @ torch.ones(30, 1, 1), ValueError, "must have shape"),
        (lambda: MatrixOperator(A) @ torch.tensor(1.0), ValueError, "must have shape"),
        (lambda: MatrixOperator(A) @ (1j * torch.ones(30)), TypeError, "must be real, got torch.complex64"),
        (
            lambda: MatrixOperator(A) @ torch.ones(30, device="meta"),
            ValueError,
            "is on meta, the operator on cpu; move",
        ),
        (lambda: as_operator(torch.ones(2, 3)), ValueError, r"matrix must be square .*got shape \(2, 3\)"),
        (lambda: as_operator(np.ones((2, 3))), ValueError, "matrix must be square"),
        (lambda: as_operator(torch.ones(3)), ValueError, "matrix must be square"),
        (lambda: as_operator(torch.ones(0, 0)), ValueError, "at least one row"),
        (lambda: as_operator(torch.ones(2, 2).long()), TypeError, r"got torch.int64; use matrix.double\(\)"),
        (lambda: as_operator(torch.eye(2) + 1j), TypeError, "must hold real"),
        (lambda: as_operator(np.eye(2) + 1j), TypeError, "operator must hold real numbers, got dtype complex128"),
        (lambda: as_operator(torch.tensor([[1.0, np.nan], [np.nan, 1.0]])), ValueError, "matrix holds NaN"),
        (lambda: as_operator(torch.tensor([[1, 2], [2.5, 1]])), ValueError, "must be symmetric, but differs .* by 0.5"),
        (lambda: MatrixOperator(np.eye(2)), TypeError, "matrix must be a dense or sparse torch tensor, got ndarray"),
        (lambda: as_operator(scipy_operator(np.ones((2, 3)))), ValueError, "operator must be square"),
        (lambda: as_operator(scipy_operator(1j * np.eye(2))), TypeError, "operator must be real"),
        (lambda: as_operator(ComplexTorchOperator()), TypeError, "operator must be real, got dtype torch.complex128"),
        (
            lambda: WrongShape(3, torch.float32, torch.device("cpu")) @ torch.ones(3),
            ValueError,
            r"a product of WrongShape must have the operand's shape \(3,\), got \(1,\)",
        ),
        (
            lambda: NotSymmetric(3, torch.float32, torch.device("cpu")).to_dense(),
            ValueError,
            "the operator is not symmetric",
        ),
        (lambda: as_operator([[1.0]]), TypeError, r"operator must have .shape and support @, got list"),
        (lambda: as_operator(None), TypeError, "operator must have .shape"),
        (
            lambda: Large(operators.DENSE_LIMIT + 1, torch.float64, torch.device("cpu")).to_dense(),
            ValueError,
            r"of 20001 rows would take 3 GB.*estimate_spectrum",
        ),
    ],
)
def test_messages(call, error, match):
    with pytest.raises(error, match=match):
        call()
