import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from renyi_lab.operators import dense_hessian, matrix_with_spectrum


def test_dense_hessian_of_a_linear_model_is_the_closed_form():
    x = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(3, 1, bias=False).double()
    expected = 2 * x.T @ x / 9
    torch.testing.assert_close(dense_hessian(model, F.mse_loss, (x, torch.zeros(9, 1).double())), expected)


def test_dense_hessian_of_logistic_regression_is_the_closed_form():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 2, dtype=torch.float64, generator=generator), torch.arange(8) % 3
    model = nn.Linear(2, 3).double()
    p = model(x).softmax(1).detach()
    features = torch.cat([x, torch.ones(8, 1).double()], 1)
    full = torch.einsum("na,nb,nij->iajb", features, features, torch.diag_embed(p) - p[:, :, None] * p[:, None]) / 8
    # from (class, feature with the bias last) to weights row by row, then biases
    order = [c * 3 + f for c in range(3) for f in range(2)] + [c * 3 + 2 for c in range(3)]
    expected = full.reshape(9, 9)[order][:, order]
    torch.testing.assert_close(dense_hessian(model, F.cross_entropy, (x, y)), expected)


def test_dense_hessian_of_a_tanh_network_agrees_with_differences_of_the_gradient():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x, y = torch.randn(5, 2).double(), torch.tensor([0, 1, 1, 0, 1])
    hessian = dense_hessian(model, F.cross_entropy, (x, y), chunk_size=4)
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()

    def gradient(vector):
        nn.utils.vector_to_parameters(vector, model.parameters())
        loss = F.cross_entropy(model(x), y)
        return nn.utils.parameters_to_vector(torch.autograd.grad(loss, list(model.parameters()))).detach()

    step = 1e-5
    columns = [(gradient(theta + step * e) - gradient(theta - step * e)) / (2 * step) for e in torch.eye(17).double()]
    torch.testing.assert_close(hessian, torch.stack(columns), rtol=1e-7, atol=1e-9)


def test_dense_hessian_leaves_no_gradients():
    model = nn.Linear(2, 1).double()
    dense_hessian(model, F.mse_loss, (torch.ones(3, 2).double(), torch.zeros(3, 1).double()))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("spectrum", [[2.0], [3.0, 3.0, 0.0, 0.0, -1.0], np.geomspace(1e-9, 1e3, 40), torch.arange(4)])
def test_matrix_has_the_spectrum_prescribed(spectrum):
    matrix = matrix_with_spectrum(spectrum, seed=5)
    assert matrix.dtype == torch.float64
    assert torch.equal(matrix, matrix.T)
    expected = np.sort(np.asarray(spectrum, dtype=float))
    np.testing.assert_allclose(torch.linalg.eigvalsh(matrix), expected, atol=1e-13 * np.abs(expected).max())


def test_seed_fixes_the_eigenvectors_and_global_random_state_is_untouched():
    state = torch.get_rng_state()
    first, again, other = (matrix_with_spectrum([1.0, 2.0, 3.0], seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(torch.get_rng_state(), state)


LINEAR = (nn.Linear(1, 1), F.mse_loss, (torch.ones(1, 1), torch.ones(1, 1)))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: matrix_with_spectrum([]), ValueError, "eigenvalues must be a vector"),
        (lambda: matrix_with_spectrum([[1.0]]), ValueError, "eigenvalues must be a vector"),
        (lambda: matrix_with_spectrum([1.0], seed=-1), ValueError, "seed must be at least 0"),
        (lambda: dense_hessian(*LINEAR, chunk_size=0), ValueError, "chunk_size must be at least 1"),
    ],
)
def test_messages(call, error, match):
    with pytest.raises(error, match=match):
        call()
