"""Losses and models that differentiate inside: physics-informed networks, force fields, gradient penalties."""

import pytest
import torch
from double_backward import double_backward
from restless import unchanged
from torch import nn
from torch.nn import functional as F

import renyi_lab as rl
from renyi_lab.operators import GGNOperator, HessianOperator, LossSurface, ascend
from renyi_lab.perturbation import average_case_loss, worst_case_loss

BUDGETS = pytest.mark.parametrize("graph_budget", [0, None])
N, D = 12, 2


def inputs():
    return torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def net(outputs=1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, outputs)).double()


def exactly(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def residual(model, batch):
    """Mean square of ``Δu + sin x`` of a physics-informed network."""
    x = batch["x"].requires_grad_(True)
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    curvature = sum(torch.autograd.grad(slope[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(D))
    return (curvature + batch["x"].detach().sin().sum(1)).square().mean()


def residual_by_backward(model, batch):
    """The same by ``backward``, which leaves gradients behind."""
    x = batch["x"].requires_grad_(True)
    model(x).sum().backward(create_graph=True, inputs=[x])
    return (x.grad - 1).square().mean()


def penalty(model, batch):
    """A gradient penalty in the parameters."""
    loss = model(batch["x"]).square().mean()
    parts = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    return loss + 0.1 * sum(part.square().sum() for part in parts)


class ForceField(nn.Module):
    """Energy and forces, the negative gradient of the energy in the positions."""

    def __init__(self):
        super().__init__()
        self.energy = net()

    def forward(self, x):
        x = x.requires_grad_(True)
        (slope,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
        return -slope


LOSSES = {"residual": residual, "backward": residual_by_backward, "penalty": penalty}
ignoring = pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")


@ignoring
@BUDGETS
@pytest.mark.parametrize(
    ("loss", "micro_batch_size"),
    [("residual", None), ("residual", 5), ("backward", None), ("backward", 5), ("penalty", None)],
)
def test_losses_of_model_and_batch(loss, micro_batch_size, graph_budget):
    model, function = net(), LOSSES[loss]
    with unchanged(model):
        options = {"micro_batch_size": micro_batch_size, "graph_budget": graph_budget}
        H = HessianOperator(model, function, {"x": inputs()}, **options)
        found = H.to_dense()
    exactly(found, double_backward(lambda: function(model, {"x": inputs()}), model.parameters()))
    exactly(found, found.T)
    value = float(function(model, {"x": inputs()}).detach())
    with torch.no_grad():
        surface = LossSurface(H)
        values = [H.loss, H.total_loss(), H.loss_and_gradient()[0], surface.loss(surface.start)]
    assert values == pytest.approx([value] * 4, rel=1e-12)
    exactly(H.to_dense(), found)


@pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])
@BUDGETS
def test_models_that_differentiate_inside(kind, graph_budget):
    model, x, y = ForceField(), inputs(), inputs().sin()
    with unchanged(model):
        operator = kind(model, nn.MSELoss(), (x, y), micro_batch_size=5, graph_budget=graph_budget)
        found = operator.to_dense()
    exactly(found, found.T)
    assert not x.requires_grad
    if kind is HessianOperator:
        exactly(found, double_backward(lambda: F.mse_loss(model(inputs()), y), model.parameters()))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_inputs_that_require_grad(requires_grad):
    model, x = net(), inputs().requires_grad_(requires_grad)
    H = HessianOperator(model, residual, {"x": x})
    exactly(H.to_dense(), double_backward(lambda: residual(model, {"x": inputs()}), model.parameters()))
    assert (x.requires_grad, x.grad) == (requires_grad, None)


def test_perturbed_losses():
    H = HessianOperator(net(), residual, {"x": inputs()})
    surface = LossSurface(H)
    found = ascend(surface, torch.ones_like(surface.start), "l2", 0.1, 3, 0)
    assert found.loss > found.base == pytest.approx(H.loss, rel=1e-14)
    assert float(worst_case_loss(H, 0.1, seed=0)) > 0
    assert float(average_case_loss(H, 0.01, seed=0)) != 0


def test_the_whole_report():
    for model, loss, batch in (
        (ForceField(), nn.MSELoss(), (inputs(), inputs().sin())),
        (net(), residual, {"x": inputs()}),
    ):
        report = rl.sharpness_report(model, loss, batch, num_matvecs=20)
        eigenvalues = torch.linalg.eigvalsh(HessianOperator(model, loss, batch).to_dense())
        assert float(report["lambda_max"]) == pytest.approx(float(eigenvalues[-1]), rel=1e-6)
        assert float(report["sam_sharpness_l2"]) > 0


def test_training_and_evaluation():
    model, x, y = ForceField(), inputs(), inputs().sin()
    expected = float(F.mse_loss(model(inputs()), y).detach())
    assert rl.evaluate(model, (x, y), loss_fn=nn.MSELoss()).loss == pytest.approx(expected, rel=1e-12)
    with torch.no_grad():
        assert rl.evaluate(model, (x, y), loss_fn=nn.MSELoss()).loss == pytest.approx(expected, rel=1e-12)
    for optimizer in ("sgd", rl.RSAM):
        history = rl.train(
            model, (x, y), epochs=2, lr=0.01, loss_fn=nn.MSELoss(), optimizer=optimizer, test_set=(x, y), progress=False
        )
        assert history.test_loss[-1] < expected


def test_a_step_of_a_sharpness_aware_optimizer_on_a_residual():
    model = net()
    optimizer = rl.RSAM(model.parameters(), torch.optim.SGD, lr=0.01)
    before = float(residual(model, {"x": inputs()}).detach())

    def closure():
        optimizer.zero_grad()
        loss = residual(model, {"x": inputs()})
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == pytest.approx(before, rel=1e-12)
    for _ in range(20):
        optimizer.step(closure)
    assert float(residual(model, {"x": inputs()}).detach()) < before
