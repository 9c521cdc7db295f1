import copy
import warnings

import pytest
import torch
from restless import unchanged
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from renyi_lab.operators import GGNOperator, HessianOperator
from renyi_lab.spectrum import estimate_spectrum

N, D, CLASSES = 17, 6, 3


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(2, 1, batch_first=True), nn.Linear(6, CLASSES)

    def forward(self, x):
        x = x.view(len(x), 3, 2)
        return self.out(self.attention(x, x, x, need_weights=False)[0].flatten(1))


def mlp(activation):
    return nn.Sequential(nn.Linear(D, 8), activation, nn.Linear(8, 8), activation, nn.Linear(8, CLASSES))


def convolutional():
    layers = nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3), nn.GELU(), nn.Flatten(), nn.Linear(3 * (D - 2), CLASSES)
    return nn.Sequential(nn.Unflatten(1, (1, D)), *layers)


NETWORKS = {
    "tanh": lambda: mlp(nn.Tanh()),
    "gelu": lambda: mlp(nn.GELU()),
    "relu": lambda: mlp(nn.ReLU()),
    "convolution": convolutional,
    "attention": Attention,
}


def network(kind="tanh", dtype=torch.float64):
    torch.manual_seed(0)
    return NETWORKS[kind]().to(dtype)


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, D, dtype=torch.float64, generator=generator).to(dtype), torch.arange(N) % CLASSES


def batches():
    x, y = data()
    return [(x[:7], y[:7]), (x[7:], y[7:])]


def by_differences(model, loss_fn=F.cross_entropy, of=None, **options):
    return HessianOperator(model, loss_fn, of or data(), method="finite_difference", **options)


def relative_error(H, reference, vectors):
    """The largest length of a product's error over ‖H‖‖v‖."""
    norm = float(torch.linalg.matrix_norm(reference, 2))
    errors = [(H @ v.to(H.dtype)).double() - reference @ v for v in vectors]
    return max(float(error.norm() / v.norm()) for error, v in zip(errors, vectors, strict=True)) / norm


def probes(reference):
    """Random vectors, and the eigenvectors of the two largest eigenvalues."""
    random = torch.randn(3, len(reference), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return [*random, *torch.linalg.eigh(reference).eigenvectors.T[-2:]]


# ---------------------------------------------------------------- products and their error


@pytest.mark.parametrize("kind", NETWORKS)
def test_agrees_with_double_backward_to_the_stated_error(kind):
    model = network(kind)
    reference = HessianOperator(model, F.cross_entropy, batches()).to_dense()
    H = by_differences(model, of=batches())
    assert relative_error(H, reference, probes(reference)) < 10 * H.product_error < 1e-6


@pytest.mark.parametrize("kind", ["tanh", "gelu", "convolution", "attention"])
def test_the_stated_error_holds_in_single_precision(kind):
    model = network(kind, torch.float32)
    exact = copy.deepcopy(model).double()
    x, y = data(torch.float32)
    reference = HessianOperator(exact, F.cross_entropy, (x.double(), y)).to_dense()
    H = by_differences(model, of=(x, y))
    assert relative_error(H, reference, probes(reference)) < 10 * H.product_error < 0.1


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_step_follows_the_scale_of_the_weights(scale):
    x, y = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.zeros(20, 1)
    model = nn.Sequential(nn.Linear(3, 1, bias=False)).double()
    nn.init.constant_(model[0].weight, scale)

    def loss_fn(outputs, y):
        return torch.cosh((outputs - y) / scale).mean()

    options = {"of": (x, y.double())}
    reference = HessianOperator(model, loss_fn, (x, y.double())).to_dense()
    H = by_differences(model, loss_fn, **options)
    assert relative_error(H, reference, probes(reference)) < 10 * H.product_error < 1e-6


def test_of_a_quadratic_loss_only_rounding_is_left():
    model = nn.Linear(D, 1, bias=False).double()
    x, _ = data()
    H = by_differences(model, nn.MSELoss(), of=(x, torch.zeros(N, 1, dtype=torch.float64)))
    exact = 2 * x.T @ x / N
    assert relative_error(H, exact, probes(exact)) < 10 * H.product_error < 1e-7


def test_a_block_without_weights_of_its_own_takes_the_scale_of_the_model():
    model = network()
    nn.init.zeros_(model[4].bias)
    H = by_differences(model, params="4.bias")
    reference = HessianOperator(model, F.cross_entropy, data(), "4.bias").to_dense()
    assert relative_error(H, reference, probes(reference)) < 10 * H.product_error < 1e-6


def test_products_scale_with_the_vector_and_zero_gives_zero():
    H = by_differences(network())
    v = torch.randn(H.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(H @ (1e-9 * v), 1e-9 * (H @ v), rtol=1e-6, atol=0)
    assert not (H @ torch.zeros(H.dim)).any()


def test_columns_are_multiplied_one_by_one():
    H = by_differences(network())
    V = torch.randn(H.dim, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(H @ V, torch.stack([H @ v for v in V.T], dim=1), rtol=1e-9, atol=1e-9)
    assert H.num_matvecs == 6


def test_the_error_is_measured_again_when_the_weights_change():
    model = network()
    H = by_differences(model)
    v = torch.randn(H.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = H @ v
    with torch.no_grad():
        model[0].weight.data.mul_(100)
    reference = HessianOperator(model, F.cross_entropy, data()).to_dense()
    assert relative_error(H, reference, [v]) < 10 * H.product_error
    assert not torch.allclose(before, H @ v, rtol=1e-2)


def test_eps_is_the_error_and_the_precision_states_it():
    H = by_differences(network())
    assert "relative error" not in repr(H)
    assert H.eps == H.product_error > torch.finfo(torch.float64).eps
    assert f"float64 on cpu by finite differences (relative error {H.product_error:.1g})" in repr(H)
    exact = HessianOperator(network(), F.cross_entropy, data())
    assert exact.eps == exact.product_error == torch.finfo(torch.float64).eps


def test_restrictions_measure_their_own_error():
    H = by_differences(network())
    _ = H.product_error
    assert all("relative error" not in repr(block) for block in H.blocks().values())


def test_the_trace_of_a_spectrum_is_that_of_double_backward():
    model = network()
    exact = estimate_spectrum(HessianOperator(model, F.cross_entropy, data()))
    close = estimate_spectrum(by_differences(model))
    assert abs(exact.trace.value - close.trace.value) < 1e-6 * abs(exact.trace.value)


def test_a_gradient_that_jumps_in_every_step_is_warned_of():
    torch.manual_seed(0)
    x = torch.randn(1000, 40)
    model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    H = by_differences(model, of=(x, torch.arange(1000) % CLASSES))
    with pytest.warns(UserWarning, match=r"finite differences have a relative error of .*double_backward"):
        assert H.product_error > 1e-2


# ---------------------------------------------------------------- models without a second derivative


class OnceTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * (1 - ctx.saved_tensors[0] ** 2)


class Once(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Linear(D, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.after(OnceTanh.apply(self.before(x)))


class Reentrant(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inside, self.last = nn.Linear(D, 5), nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        hidden = self.first(x)
        return self.last(checkpoint(lambda h: torch.tanh(self.inside(h)), hidden, use_reentrant=True))


def test_a_layer_that_is_differentiable_once_is_no_obstacle():
    torch.manual_seed(0)
    model = Once().double()
    with pytest.raises(RuntimeError, match='method="finite_difference"'):
        HessianOperator(model, F.cross_entropy, data()) @ torch.ones(53, dtype=torch.float64)
    plain = nn.Sequential(model.before, nn.Tanh(), model.after)
    reference = HessianOperator(plain, F.cross_entropy, data()).to_dense()
    H = by_differences(model)
    assert relative_error(H, reference, probes(reference)) < 10 * H.product_error < 1e-6


@pytest.mark.parametrize("params", [None, "inside", "last"])
def test_reentrant_checkpointing_is_no_obstacle(params):
    torch.manual_seed(0)
    model = Reentrant().double()
    with pytest.raises(ValueError, match='method="finite_difference"'):
        HessianOperator(model, F.cross_entropy, data())
    plain = nn.Sequential(model.first, model.inside, nn.Tanh(), model.last)
    name = {None: None, "inside": "1", "last": "3"}[params]
    reference = HessianOperator(plain, F.cross_entropy, data(), name).to_dense()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    H = by_differences(model, params=params)
    with unchanged(model):
        error = relative_error(H, reference, probes(reference))
    assert error < 10 * H.product_error < 1e-6
    assert all(bool((p.grad == 1).all()) for p in model.parameters())


def test_sparse_gradients_are_no_obstacle():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    tokens = torch.arange(2 * N).view(N, 2) % 5
    H = by_differences(model, of=(tokens, data()[1]))
    model_of_plain = copy.deepcopy(model)
    model_of_plain[0].sparse = False
    reference = HessianOperator(model_of_plain, F.cross_entropy, (tokens, data()[1])).to_dense()
    assert relative_error(H, reference, probes(reference)) < 10 * H.product_error < 1e-6


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return -grad


class WithReversal(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Linear(D, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.after(torch.tanh(Reversed.apply(self.before(x))))


def test_a_gradient_that_is_not_a_derivative_is_refused():
    torch.manual_seed(0)
    H = by_differences(WithReversal().double())
    with pytest.raises(RuntimeError, match="not those of a symmetric matrix"):
        H @ torch.ones(H.dim)


# ---------------------------------------------------------------- nothing is left behind


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_weights_and_gradients_are_restored_bit_for_bit(error):
    model = network()
    memory = [parameter.data_ptr() for parameter in model.parameters()]
    left = [float("inf")]

    def loss_fn(outputs, y):
        left[0] -= 1
        if left[0] == 0:
            raise error
        return F.cross_entropy(outputs, y)

    H = by_differences(model, loss_fn, of=batches(), reduction="mean", batch_mass=lambda batch: len(batch[1]))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    with unchanged(model):
        for calls in (1, 2, 4, 21) if error else (float("inf"),):
            left[0] = calls
            if error:
                with pytest.raises(error):
                    H @ torch.ones(H.dim)
            else:
                H @ torch.ones(H.dim)
    assert [parameter.data_ptr() for parameter in model.parameters()] == memory
    assert all(bool((p.grad == 3).all()) for p in model.parameters())


def test_the_cost_of_products_is_estimated():
    cost = by_differences(network()).estimate_cost(30)
    assert cost.num_matvecs == 30
    assert cost.graph_memory > 0


def test_methods_are_checked():
    with pytest.raises(ValueError, match="method"):
        HessianOperator(network(), F.cross_entropy, data(), method="fd")
    with pytest.raises(TypeError, match="method"):
        GGNOperator(network(), F.cross_entropy, data(), method="finite_difference")


def test_smooth_networks_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_differences(network()) @ torch.ones(sum(p.numel() for p in network().parameters()))
