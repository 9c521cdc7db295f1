"""Batch norm in evaluation mode is computed as an affine map, and only while a graph is built."""

import pytest
import torch
from torch import nn

from renyi_lab._utils.model_state import affine_batch_norm
from renyi_lab.operators import HessianOperator, dense_hessian

LAYERS = {
    "1d": (lambda: nn.BatchNorm1d(3), (5, 3)),
    "1d over a sequence": (lambda: nn.BatchNorm1d(3), (5, 3, 4)),
    "2d": (lambda: nn.BatchNorm2d(3), (5, 3, 2, 2)),
    "without weights": (lambda: nn.BatchNorm2d(3, affine=False), (5, 3, 2, 2)),
    "without statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (5, 3, 2, 2)),
}


def with_statistics(layer):
    generator = torch.Generator().manual_seed(0)
    for tensor in (*layer.parameters(), *layer.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return layer.double().eval()


@pytest.mark.parametrize("name", LAYERS)
def test_the_affine_map_equals_torchs_batch_norm(name):
    build, shape = LAYERS[name]
    layer = with_statistics(build())
    inputs = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = layer(inputs)
    with affine_batch_norm(layer):
        torch.testing.assert_close(layer(inputs), expected, rtol=1e-13, atol=1e-13)


def test_layers_in_training_mode_and_subclasses_are_not_changed():
    class Own(nn.BatchNorm1d):
        pass

    model = nn.Sequential(nn.BatchNorm1d(3).train(), Own(3).eval())
    with affine_batch_norm(model):
        assert all("forward" not in vars(layer) for layer in model)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_forward_method_is_restored_after_products_errors_and_interrupts(error):
    model = nn.Sequential(nn.Linear(3, 3), with_statistics(nn.BatchNorm1d(3)), nn.Tanh()).double().eval()
    data = (torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64))
    operator = HessianOperator(model, nn.functional.mse_loss, data)
    torch.testing.assert_close(operator.to_dense(), dense_hessian(model, nn.functional.mse_loss, data))
    assert "forward" not in vars(model[1])

    def interrupted():
        with affine_batch_norm(model):
            assert "forward" in vars(model[1])
            raise error

    with pytest.raises(error):
        interrupted()
    assert "forward" not in vars(model[1])
