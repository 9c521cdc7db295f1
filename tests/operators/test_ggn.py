import curvlinops
import pytest
import torch
from once_differentiable import OnceDifferentiable
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from renyi_lab.operators import GGNOperator, HessianOperator

N, D, CLASSES = 17, 4, 3


def relu_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 5), nn.ReLU(), nn.Linear(5, CLASSES)).double()


def data(targets="classes"):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, D, dtype=torch.float64, generator=generator)
    if targets == "classes":
        return x, torch.arange(N) % CLASSES
    return x, torch.randn(N, CLASSES, dtype=torch.float64, generator=generator)


def probe(n, seed=2):
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ragged(targets="classes", size=5):
    return DataLoader(TensorDataset(*data(targets)), batch_size=size)


def exactly(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def jacobian(model, x):
    """``(N, outputs, n)`` by torch.func."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    columns = torch.func.jacrev(lambda w: torch.func.functional_call(model, w, (x,)))(weights)
    return torch.cat([columns[name].flatten(2) for name in weights], dim=2)


def softmax_curvature(outputs):
    p = outputs.softmax(-1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def dense_ggn(model, x, output_curvature):
    """The mean over samples of ``Jᵀ H J``, with ``H`` of shape ``(N, outputs, outputs)`` in closed form."""
    J, curvature = jacobian(model.eval(), x), output_curvature(model(x).detach())
    return torch.einsum("nci,ncd,ndj->ij", J, curvature, J) / len(x)


def square_curvature(outputs):
    return 2 / CLASSES * torch.eye(CLASSES, dtype=torch.float64).expand(len(outputs), -1, -1)


LOSSES = {
    "cross-entropy": (F.cross_entropy, "classes", softmax_curvature),
    "mean squared error": (nn.MSELoss(), "numbers", square_curvature),
    "convex, by hand": (lambda o, t: (o - t).cosh().sum(1).mean(), "numbers", None),
}


# ---------------------------------------------------------------- the right matrix


@pytest.mark.parametrize("graph_budget", [0, 1500, None])
@pytest.mark.parametrize("loss", LOSSES)
def test_equals_the_dense_matrix_of_jacobians_on_ragged_batches(loss, graph_budget):
    loss_fn, targets, curvature = LOSSES[loss]
    model, (x, y) = relu_net(), data(targets)
    if curvature is None:
        curvature = lambda outputs: torch.diag_embed((outputs - y).cosh())  # noqa: E731
    dense = dense_ggn(model, x, curvature)
    G = GGNOperator(model, loss_fn, ragged(targets), graph_budget=graph_budget)
    exactly(G.to_dense(), dense)
    exactly(G @ probe(G.dim), dense @ probe(G.dim))
    assert dense.abs().max() > 0.01
    assert G.num_batches_kept in {0: [0], 1500: [1, 2, 3], None: [4]}[graph_budget]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("kind", "targets"), [(nn.CrossEntropyLoss, "classes"), (nn.MSELoss, "numbers")])
def test_equals_curvlinops(kind, targets, reduction):
    model, loss = relu_net(), kind(reduction=reduction)
    foreign = curvlinops.GGNLinearOperator(model, loss, list(model.parameters()), list(ragged(targets)))
    exactly(GGNOperator(model, loss, ragged(targets)) @ probe(43), foreign @ probe(43))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(4, 12), nn.Linear(4, CLASSES)

    def forward(self, x):
        q, k, v = self.mix(x.reshape(-1, 2, 2).repeat(1, 1, 2)).chunk(3, -1)
        return self.head(F.scaled_dot_product_attention(q, k, v).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(1, 3, batch_first=True), nn.Linear(3, CLASSES)

    def forward(self, x):
        return self.head(self.rnn(x.unsqueeze(-1))[0][:, -1])


ARCHITECTURES = {
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, D)), nn.Conv1d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES)
    ),
    "batch norm": lambda: nn.Sequential(nn.Linear(D, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, CLASSES)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(D, CLASSES)),
    "attention": Attention,
    "lstm": Recurrent,
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_architectures_agree_with_differences_of_the_outputs(kind):
    torch.manual_seed(3)
    model = ARCHITECTURES[kind]().double().eval()
    G, x = GGNOperator(model, F.cross_entropy, ragged()), data()[0]
    start, v, step = nn.utils.parameters_to_vector(model.parameters()).detach(), probe(G.dim), 1e-5

    def outputs(theta):
        nn.utils.vector_to_parameters(theta, model.parameters())
        return model(x)

    with torch.no_grad():
        pushed = (outputs(start + step * v) - outputs(start - step * v)) / (2 * step)
        curved = (softmax_curvature(outputs(start)) @ pushed[:, :, None])[:, :, 0] / N
    expected = torch.autograd.grad(model(x), list(model.parameters()), curved)
    product = G @ v
    exactly(product, torch.cat([part.reshape(-1) for part in expected]), 1e-8)
    assert product.abs().max() > 1e-3


def test_is_symmetric_positive_semidefinite_where_the_hessian_is_not():
    model = nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()
    dense = GGNOperator(model, F.cross_entropy, data()).to_dense()
    exactly(dense, dense.T, 1e-14)
    assert torch.linalg.eigvalsh(dense).min() > -1e-14
    assert torch.linalg.eigvalsh(HessianOperator(model, F.cross_entropy, data()).to_dense()).min() < -1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_equals_the_hessian_of_a_linear_model(loss):
    loss_fn, targets, _ = LOSSES[loss]
    torch.manual_seed(0)
    model = nn.Linear(D, CLASSES).double()
    G, H = (kind(model, loss_fn, ragged(targets)) for kind in (GGNOperator, HessianOperator))
    exactly(G.to_dense(), H.to_dense(), 1e-13)
    assert G.to_dense().abs().max() > 0.1


# ---------------------------------------------------------------- parameters


def test_blocks_are_the_sub_matrices():
    model, start = relu_net(), 0
    dense = dense_ggn(model, data()[0], softmax_curvature)
    for block in GGNOperator(model, F.cross_entropy, ragged()).blocks().values():
        assert type(block) is GGNOperator
        exactly(block.to_dense(), dense[start : start + block.dim, start : start + block.dim])
        start += block.dim


@pytest.mark.parametrize("graph_budget", [0, None])
def test_frozen_parameters_are_skipped_and_unused_ones_have_zero_rows(graph_budget):
    model = relu_net()
    dense = dense_ggn(model, data()[0], softmax_curvature)
    model[0].requires_grad_(False)
    model.spare = nn.Linear(2, 2).double()
    model.forward = lambda x: model[2](model[1](model[0](x)))
    found = GGNOperator(model, F.cross_entropy, data(), graph_budget=graph_budget).to_dense()
    exactly(found[:18, :18], dense[25:, 25:])
    assert found[18:].abs().max() == found[:, 18:].abs().max() == 0


@pytest.mark.parametrize("graph_budget", [0, None])
def test_products_follow_the_current_weights(graph_budget):
    model = relu_net()
    G = GGNOperator(model, F.cross_entropy, ragged(), graph_budget=graph_budget)
    before = G @ probe(43)
    model[0].weight.data.mul_(1.5)
    exactly(G @ probe(43), dense_ggn(model, data()[0], softmax_curvature) @ probe(43))
    assert not torch.allclose(G @ probe(43), before)


def test_dropout_masks_of_training_mode_are_those_of_the_hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(D, CLASSES)).double()  # linear: both matrices are the same
    with pytest.warns(UserWarning, match='mode="train" with dropout'):
        G, H = (kind(model, F.cross_entropy, ragged(), mode="train") for kind in (GGNOperator, HessianOperator))
    exactly(G @ probe(15), H @ probe(15), 1e-13)
    assert not torch.allclose(G @ probe(15), GGNOperator(model, F.cross_entropy, ragged()) @ probe(15))


@pytest.mark.parametrize("graph_budget", [0, None])
@pytest.mark.parametrize(
    "loss", [nn.L1Loss(), lambda o, t: F.mse_loss(o.detach(), t)], ids=["piecewise linear", "detached"]
)
def test_identically_zero_matrix_is_warned_of(loss, graph_budget):
    G = GGNOperator(relu_net(), loss, data("numbers"), graph_budget=graph_budget)
    with pytest.warns(UserWarning, match="seems to be identically zero") as record:
        assert (G @ probe(43)).abs().max() == 0
    assert record[0].filename == __file__


# ---------------------------------------------------------------- messages


class TwoOutputs(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


def product(model=None, loss_fn=F.cross_entropy, batches=None, **options):
    operator = GGNOperator(model or relu_net(), loss_fn, data() if batches is None else batches, **options)
    return operator @ probe(operator.dim)


def hidden_outputs(model, batch):
    return model(data()[0]).sum()


def once_differentiable():
    return nn.Sequential(nn.Linear(D, CLASSES), OnceDifferentiable()).double()


NEEDS_OUTPUTS = r"needs the outputs .*\(x, y\).* HessianOperator; got loss_style=.model_batch"
NOT_TWICE = r"cannot be differentiated twice .*once_differentiable.*params="


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: product(TwoOutputs(D, CLASSES).double(), lambda o, t: F.cross_entropy(o[0], t)),
            TypeError,
            r"must return one tensor .* got tuple; wrap it .* HessianOperator",
        ),
        (lambda: product(loss_fn=hidden_outputs, batches={"x": data()[0]}), ValueError, NEEDS_OUTPUTS),
        (lambda: product(loss_fn=hidden_outputs, loss_style="model_batch"), ValueError, NEEDS_OUTPUTS),
        (
            lambda: product(batches=(data()[0], torch.full((N,), 3))),
            ValueError,
            "targets hold the label 3, but the model has 3 outputs",
        ),
        (lambda: product(once_differentiable(), graph_budget=0), RuntimeError, NOT_TWICE),
        (lambda: product(once_differentiable()), RuntimeError, NOT_TWICE),
    ],
)
def test_messages(call, error, match):
    with pytest.raises(error, match=match):
        call()
