"""What every operator of a model shares: its batches, its loss, and its restrictions to blocks and subsets."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from renyi_lab.operators import GGNOperator, HessianOperator

N, D, CLASSES = 17, 4, 3
BOTH = pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])
TRAINING_MODE = pytest.mark.filterwarnings('ignore:mode="train"')


def dropout_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, D, dtype=torch.float64, generator=generator), torch.arange(N) % CLASSES


def ragged(size=5):
    return DataLoader(TensorDataset(*data()), batch_size=size)


def exactly(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- blocks and subsets


def summed_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")


@TRAINING_MODE
def test_blocks_and_subsets_keep_every_option():
    options = {"mode": "train", "seed": 3, "reduction": "sum", "loss_style": "model_batch", "graph_budget": 0}
    model = dropout_net()
    H = HessianOperator(model, summed_loss, ragged(), **options)
    dense, start = H.to_dense(), 0
    for option in ("mode", "seed"):  # each has an effect here
        without = {name: value for name, value in options.items() if name != option}
        assert (HessianOperator(model, summed_loss, ragged(), **without).to_dense() - dense).abs().max() > 1e-3
    with pytest.raises(ValueError, match='It is a sum: pass reduction="sum"'):
        HessianOperator(model, summed_loss, ragged(), **options | {"reduction": None})
    for block in H.blocks().values():
        stop = start + block.dim
        exactly(block.to_dense(), dense[start:stop, start:stop])
        assert block.num_batches_kept == 0
        start = stop
    assert start == H.dim
    exactly(H.restricted(batches=H.batches[:1]).to_dense() + tail_of(H, 1, options).to_dense(), dense)


def tail_of(H, first, options):
    """The operator over the batches from ``first`` on, with the random masks that they have in ``H``."""
    return HessianOperator(H.model, H.loss_fn, H.batches[first:], **options | {"seed": H.seed + first})


@TRAINING_MODE
@pytest.mark.parametrize("mode", ["eval", "train"])
@BOTH
def test_a_subset_is_the_operator_over_its_batches(kind, mode):
    model, loss = dropout_net(), nn.CrossEntropyLoss(weight=torch.tensor([5.0, 1.0, 0.2]).double())
    operator = kind(model, loss, ragged(), mode=mode)
    _ = operator @ torch.ones(operator.dim, dtype=torch.float64)
    part = operator.restricted(params="3", batches=operator.batches[1:3])
    expected = kind(model, loss, [batch.content for batch in operator.batches[1:3]], "3", mode=mode)
    assert type(part) is kind
    assert (part.num_matvecs, part.num_batches_kept) == (0, 0)
    for name in ("shape", "parameter_names", "num_samples", "total_mass", "loss"):
        assert getattr(part, name) == getattr(expected, name)
    assert part.total_loss() == expected.total_loss()
    assert torch.equal(part.gradient(), expected.gradient())
    exactly(part.to_dense(), expected.to_dense())
    assert (operator.num_samples, operator.dim, operator.num_matvecs, operator.num_batches_kept) == (N, 43, 1, 4)


def test_a_block_of_a_block_is_a_block():
    H = HessianOperator(dropout_net(), F.cross_entropy, ragged(), "0")
    exactly(H.restricted(params="0.bias").to_dense(), H.to_dense()[20:, 20:])


def test_blocks_evaluate_nothing_and_subsets_only_their_own_batches():
    model, calls = dropout_net(), []
    with pytest.warns(UserWarning, match='mode="train"'):
        H = HessianOperator(model, F.cross_entropy, ragged(), mode="train")
    model.register_forward_hook(lambda *_: calls.append(None))
    H.blocks()  # a second warning would be an error here
    assert len(calls) == 0
    H.restricted(batches=H.batches[:2])
    assert len(calls) == 2


# ---------------------------------------------------------------- the loss


@TRAINING_MODE
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_total_loss_and_gradient_are_those_at_the_current_weights(mode):
    model, (x, y) = dropout_net(), data()
    H = HessianOperator(model, F.cross_entropy, ragged(), mode=mode)
    at_construction = H.loss
    assert H.total_loss() == at_construction
    with torch.no_grad():
        model[3].weight.mul_(2)
    moved = HessianOperator(model, F.cross_entropy, ragged(), mode=mode)
    assert H.loss == at_construction != moved.loss
    assert H.total_loss() == moved.loss
    assert H.loss_and_gradient()[0] == pytest.approx(moved.loss, rel=1e-14)
    if mode == "eval":
        loss = F.cross_entropy(model.eval()(x), y)
        assert moved.loss == pytest.approx(float(loss.detach()), rel=1e-14)
        exactly(H.gradient(), H.flatten(torch.autograd.grad(loss, list(model.parameters()))))


@TRAINING_MODE
def test_batch_losses_add_up_and_are_functions_of_the_outputs():
    H = HessianOperator(dropout_net(), F.cross_entropy, ragged(), mode="train")
    with H.evaluation_point():
        losses = [H.batch_loss(index) for index in range(4)]
        assert float(sum(losses).detach()) == pytest.approx(H.loss, rel=1e-14)
        assert torch.equal(H.output_loss(H.outputs(2), 2), losses[2])
        assert not torch.equal(H.outputs(0), H.model(H.batches[0].content[0]))  # the next masks are others


LABELS = data()[1]  # six 0s, six 1s and five 2s
CLASS_WEIGHTS = torch.tensor([5.0, 1.0, 0.25]).double()


@pytest.mark.parametrize(
    ("loss", "mass"),
    [
        (F.cross_entropy, 17),
        (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), 6 * 5 + 6 * 1 + 5 * 0.25),
        (nn.CrossEntropyLoss(ignore_index=1), 6 + 5),
        (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, ignore_index=1), 6 * 5 + 5 * 0.25),
        (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, reduction="sum"), 17),
    ],
    ids=["samples", "class weights", "ignored labels", "both", "sum"],
)
def test_total_mass_is_the_denominator_of_the_mean(loss, mass):
    model, (x, y) = dropout_net().eval(), data()
    H = HessianOperator(model, loss, ragged())
    assert H.total_mass == pytest.approx(mass, rel=1e-14)
    if H.reduction == "mean":
        options = {"weight": loss.weight, "ignore_index": loss.ignore_index} if isinstance(loss, nn.Module) else {}
        total = F.cross_entropy(model(x), y, reduction="sum", **options)
        assert H.loss == pytest.approx(float(total.detach()) / mass, rel=1e-12)


# ---------------------------------------------------------------- flat vectors


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_unflatten_is_the_inverse_of_flatten(leading):
    model = dropout_net()
    model.register_parameter("scale", nn.Parameter(torch.ones((), dtype=torch.float64)))
    H = HessianOperator(model, F.cross_entropy, ragged())
    vectors = torch.arange(float(torch.Size(leading).numel() * H.dim), dtype=torch.float64).reshape(*leading, H.dim)
    parts = H.unflatten(vectors)
    assert [part.shape for part in parts] == [torch.Size((*leading, *p.shape)) for p in H.parameters.values()]
    assert torch.equal(H.flatten(parts), vectors)
    first = (0,) * len(leading)
    assert torch.equal(H.flatten(part[first] for part in parts), vectors[first])


def test_flatten_returns_a_detached_copy():
    model = nn.Linear(1, 1, bias=False)
    vector = HessianOperator(model, F.mse_loss, (torch.ones(1, 1), torch.ones(1, 1))).flatten(model.parameters())
    assert not vector.requires_grad
    assert vector.data_ptr() != model.weight.data_ptr()


@BOTH
def test_no_columns_give_no_columns(kind):
    operator = kind(dropout_net(), F.cross_entropy, ragged())
    assert (operator @ torch.ones(43, 0)).shape == (43, 0)


# ---------------------------------------------------------------- messages

WHOLE = HessianOperator(dropout_net(), F.cross_entropy, ragged())


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: WHOLE.restricted(params="0").restricted(params="*.bias"),
            ValueError,
            "'3.bias' is not among the operator's parameters 0.weight, 0.bias",
        ),
        (lambda: WHOLE.restricted(params="1"), ValueError, "is not the name of a parameter or module"),
        (lambda: WHOLE.restricted(batches=[]), ValueError, "data is empty"),
        (lambda: WHOLE.restricted(batches=WHOLE.batches[0]), TypeError, "data must be .* got Batch"),
    ],
)
def test_restrictions_that_are_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
