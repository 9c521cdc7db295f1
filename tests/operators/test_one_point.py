"""Losses and products are evaluated at one point: the same flags, kernels, seeds and buffers, and no side effects."""

import copy
import functools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from double_backward import CLASSES, D, N, data, double_backward
from restless import unchanged
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from renyi_lab.operators import GGNOperator, HessianOperator, LossSurface

BUDGETS = pytest.mark.parametrize("graph_budget", [0, None])
BOTH = pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])
TRAINING_MODE = pytest.mark.filterwarnings('ignore:mode="train"', "ignore:the model or the loss draws random numbers")


def exactly(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def dense(model, loss=F.cross_entropy, batch=None):
    """The Hessian of the plain function in the model's present mode."""
    x, y = batch or data()
    return double_backward(lambda: loss(model(x), y), model.parameters())


def check(operator, expected, tolerance=1e-10):
    found = operator.to_dense()
    exactly(found, expected, tolerance)
    exactly(found, found.T, tolerance)
    assert float(expected.abs().max()) > 1e-3


# ---------------------------------------------------------------- activation checkpointing


class Checkpointed(nn.Module):
    """Two checkpointed segments around a plain layer, or the same without checkpointing."""

    def __init__(self, segment, **options):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(D, 5), *segment(), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(5, 4), *segment(), nn.Tanh())
        self.head, self.options = nn.Linear(4, CLASSES), options

    def forward(self, x):
        for segment in (self.first, self.second):
            x = checkpoint(segment, x, **self.options) if self.options else segment(x)
        return self.head(x)


def plain_copy(model):
    twin = copy.deepcopy(model)
    twin.options = {}
    return twin


DROPOUT = lambda: [nn.Dropout(0.4)]  # noqa: E731
NOTHING = lambda: []  # noqa: E731


@BUDGETS
@BOTH
@pytest.mark.parametrize("preserve", [True, False])
def test_checkpointed_models_in_evaluation_mode(kind, preserve, graph_budget):
    model = Checkpointed(DROPOUT, use_reentrant=False, preserve_rng_state=preserve).double().train()
    expected = kind(plain_copy(model), F.cross_entropy, data(), micro_batch_size=5).to_dense()
    with unchanged(model):
        operator = kind(model, F.cross_entropy, data(), micro_batch_size=5, graph_budget=graph_budget)
        check(operator, expected)
    if kind is HessianOperator:
        exactly(expected, dense(plain_copy(model).eval()))


@TRAINING_MODE
@BUDGETS
@BOTH
def test_checkpointed_dropout_has_the_same_masks_in_every_product(kind, graph_budget):
    model = Checkpointed(DROPOUT, use_reentrant=False).double().eval()
    options = {"mode": "train", "seed": 3, "micro_batch_size": 5}
    expected = kind(plain_copy(model), F.cross_entropy, data(), **options)
    operator = kind(model, F.cross_entropy, data(), graph_budget=graph_budget, **options)
    with unchanged(model):
        check(operator, expected.to_dense())
        exactly(operator.gradient(), expected.gradient())
    assert operator.loss == pytest.approx(expected.loss, rel=1e-14)


@TRAINING_MODE
@BUDGETS
@BOTH
def test_dropout_masks_that_are_not_preserved_are_refused(kind, graph_budget):
    model = Checkpointed(DROPOUT, use_reentrant=False, preserve_rng_state=False).double()
    operator = kind(model, F.cross_entropy, data(), mode="train", graph_budget=graph_budget)
    with unchanged(model), pytest.raises(RuntimeError, match="preserve_rng_state=True"):
        operator @ torch.ones(operator.dim)
    with unchanged(model), pytest.raises(RuntimeError, match="preserve_rng_state=True"):
        operator.gradient()


@TRAINING_MODE
@BUDGETS
@BOTH
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_checkpointed_batch_norm_leaves_its_statistics_alone(kind, mode, graph_budget):
    model = Checkpointed(lambda: [nn.LazyBatchNorm1d()], use_reentrant=False).double()
    model.train()(data()[0])
    expected = kind(plain_copy(model), F.cross_entropy, data(), mode=mode, micro_batch_size=6).to_dense()
    operator = kind(model, F.cross_entropy, data(), mode=mode, micro_batch_size=6, graph_budget=graph_budget)
    with unchanged(model):
        check(operator, expected)


@BOTH
def test_reentrant_checkpointing_is_refused(kind):
    model = nn.Sequential(nn.Linear(D, D), Checkpointed(NOTHING, use_reentrant=True)).double()
    with pytest.raises(ValueError, match="use_reentrant=False"):
        kind(model, F.cross_entropy, data())


class OwnCheckpoint(torch.autograd.Function):
    """Recomputes a module during the backward pass, by no function of torch's."""

    @staticmethod
    def forward(ctx, module, x, *weights):
        ctx.module = module
        ctx.save_for_backward(x, *weights)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx, grad):
        x, *weights = ctx.saved_tensors
        with torch.enable_grad():
            y = ctx.module(x)
            inputs = [tensor for tensor in (x, *weights) if tensor.requires_grad]
            found = iter(torch.autograd.grad(y, inputs, grad, create_graph=True))
        return (None, *(next(found) if tensor.requires_grad else None for tensor in (x, *weights)))


class OwnCheckpointed(Checkpointed):
    def forward(self, x):
        return self.head(OwnCheckpoint.apply(self.first, x, *self.first.parameters()) @ torch.ones(5, 4).to(x))


@BUDGETS
def test_a_recomputation_by_other_means_sees_the_same_flags(graph_budget):
    model = OwnCheckpointed(DROPOUT).double().train()
    H = HessianOperator(model, F.cross_entropy, data(), ["first", "head"], graph_budget=graph_budget)
    plain = lambda: F.cross_entropy(twin.head(twin.first(data()[0]) @ torch.ones(5, 4).double()), data()[1])  # noqa: E731
    twin = copy.deepcopy(model).eval()
    check(H, double_backward(plain, [*twin.first.parameters(), *twin.head.parameters()]))


class OtherCheckpointed(Checkpointed):
    """By other functions of torch's, and with dropout as a function."""

    def forward(self, x):
        if self.options.get("by") == "sequence":
            x = checkpoint_sequential(nn.Sequential(*self.first, *self.second), 2, x, use_reentrant=False)
        elif self.options.get("by") == "host":
            with torch.autograd.graph.save_on_cpu():
                x = self.second(self.first(x))
        elif self.options.get("by") == "function":
            x = checkpoint(self.inside, x, use_reentrant=False)
        else:
            x = self.inside(x)
        return self.head(x)

    def inside(self, x):
        return self.second(F.dropout(self.first(x), 0.0 if "layers" in vars(self) else 0.3, self.training))


@TRAINING_MODE
@BUDGETS
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("by", ["sequence", "host", "function"])
def test_other_ways_of_checkpointing(by, mode, graph_budget):
    model = OtherCheckpointed(NOTHING if by == "function" else DROPOUT, by=by).double()
    if by != "function":
        model.layers = 0  # the dropout of its layers is all
    expected = HessianOperator(plain_copy(model), F.cross_entropy, data(), mode=mode).to_dense()
    with unchanged(model.train(mode == "eval")):
        check(HessianOperator(model, F.cross_entropy, data(), mode=mode, graph_budget=graph_budget), expected)


# ---------------------------------------------------------------- losses without a gradient


class Encoder(nn.Module):
    """Its fast path, taken without gradients only, returns zeros at padded positions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(4, CLASSES)

    def forward(self, x):
        padded = torch.arange(4).expand(len(x), 4) > 1 + torch.arange(len(x))[:, None] % 3
        return self.head(self.encoder(x.unsqueeze(-1).expand(-1, -1, 4), src_key_padding_mask=padded).mean(1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_transformers_loss_is_the_one_that_is_differentiated():
    model, (x, y) = Encoder().double().eval(), data()
    expected = float(F.cross_entropy(model(x), y).detach())
    with torch.no_grad():
        assert abs(float(F.cross_entropy(model(x), y)) - expected) > 1e-2  # torch's own inconsistency
        H = HessianOperator(model, F.cross_entropy, (x, y))
        surface = LossSurface(H)
        losses = [H.loss, H.total_loss(), H.loss_and_gradient()[0], surface.loss(surface.start)]
    assert losses == pytest.approx([expected] * 4, rel=1e-12)
    assert torch.backends.mha.get_fastpath_enabled()
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        expected_matrix = dense(model)
    check(H, expected_matrix)


# ---------------------------------------------------------------- precision


def single(kind=HessianOperator, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, CLASSES))
    return kind(model, F.cross_entropy, data(torch.float32), **options)


@BUDGETS
@BOTH
def test_autocast_around_a_product_has_no_effect(kind, graph_budget):
    expected = single(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        operator = single(kind, graph_budget=graph_budget)
        found = operator.to_dense(), operator.gradient(), operator.total_loss()
        assert torch.is_autocast_enabled("cpu")
    exactly(found[0], expected.to_dense(), 1e-6)
    exactly(found[1], expected.gradient(), 1e-6)
    assert found[2] == pytest.approx(operator.loss, rel=1e-6)
    assert operator.loss == pytest.approx(expected.loss, rel=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # around a kept graph that was built outside
        exactly(expected.to_dense(), found[0], 1e-6)


class Halved(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.layer, self.how = nn.Linear(D, CLASSES), how

    def forward(self, x):
        if self.how == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.layer(x).float()
        return self.layer(x).to(self.how).float()


@BOTH
@pytest.mark.parametrize("how", ["autocast", torch.bfloat16, torch.float16])
def test_models_that_compute_in_half_precision_are_refused(kind, how):
    with pytest.raises(ValueError, match=r"computes in torch.*float16.*remove the casts and torch.autocast"):
        kind(Halved(how), F.cross_entropy, data(torch.float32))


def test_matrix_products_in_fewer_digits_are_off():
    torch.set_float32_matmul_precision("medium")
    try:
        H = single()
        with H.evaluation_point():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


# ---------------------------------------------------------------- surroundings


@BUDGETS
@pytest.mark.parametrize(
    "surroundings",
    [
        torch.no_grad,
        lambda: torch.set_grad_enabled(False),
        lambda: torch.autograd.set_detect_anomaly(True),
        lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
        lambda: torch.autograd.graph.save_on_cpu(),
        lambda: torch.device("meta"),
    ],
    ids=["no_grad", "set_grad_enabled", "anomaly", "hooks", "save_on_cpu", "meta"],
)
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_surroundings_have_no_effect(surroundings, graph_budget):
    torch.manual_seed(0)
    model, batch = nn.Sequential(nn.Linear(D, 3), nn.Tanh(), nn.Linear(3, CLASSES)).double(), data()
    expected = dense(model)
    vectors = torch.eye(len(expected), dtype=torch.float64)
    with surroundings():
        H = HessianOperator(model, F.cross_entropy, batch, micro_batch_size=5, graph_budget=graph_budget)
        products, gradient, loss = H @ vectors, H.gradient(), H.total_loss()
    exactly(products, expected)
    exactly(gradient, H.gradient())
    assert loss == H.loss


@BUDGETS
def test_a_product_in_inference_mode_is_refused_where_a_graph_must_be_built(graph_budget):
    H = single(graph_budget=graph_budget)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        H @ torch.ones(H.dim)


def test_deterministic_algorithms_stay_on():
    torch.use_deterministic_algorithms(True)
    try:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(D, 3), nn.Tanh(), nn.Linear(3, CLASSES)).double()
        check(HessianOperator(model, F.cross_entropy, data()), dense(model))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


# ---------------------------------------------------------------- random and stateful models


class Noisy(nn.Module):
    """Random also in evaluation mode."""

    def __init__(self, source):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head, self.source = nn.Linear(D, 5), nn.Linear(5, CLASSES), source
        self.own = {
            "torch generator": torch.Generator().manual_seed(1),
            "numpy generator": np.random.default_rng(1),
            "python generator": random.Random(1),
        }.get(source)

    def factor(self, x):
        if self.source == "dropout":
            return F.dropout(torch.ones_like(x), 0.5)
        draw = {
            "torch": lambda: float(torch.randn(())),
            "python": random.random,
            "numpy": np.random.rand,
            "torch generator": lambda: float(torch.randn((), generator=self.own)),
            "numpy generator": lambda: float(self.own.random()),
            "python generator": lambda: self.own.random(),
        }[self.source]
        return 1 + draw()

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.head(hidden * self.factor(hidden))


SOURCES = ["dropout", "torch", "python", "numpy", "torch generator", "numpy generator", "python generator"]


@pytest.mark.filterwarnings("ignore:the model or the loss draws random numbers")
@BUDGETS
@pytest.mark.parametrize("source", SOURCES)
def test_random_models_have_one_loss_and_one_matrix(source, graph_budget):
    model, x = Noisy(source).double(), data()[0]
    H = HessianOperator(model, F.cross_entropy, data(), micro_batch_size=7, graph_budget=graph_budget)
    other = HessianOperator(model, F.cross_entropy, data(), micro_batch_size=7)
    with unchanged(model):
        first = H.to_dense()
    assert H.loss == H.total_loss() == pytest.approx(H.loss_and_gradient()[0], rel=1e-14) == other.loss
    exactly(first, first.T)
    exactly(H.to_dense(), first)
    exactly(other.to_dense(), first)
    # the same draws by hand
    index = {0: 0, 1: 7}

    def loss():
        total = 0.0
        for batch, start in index.items():
            random.seed(batch), np.random.seed(batch), torch.manual_seed(batch)
            model.own = copy.deepcopy(fresh.own)
            part = slice(start, start + 7)
            total = total + F.cross_entropy(model(x[part]), data()[1][part], reduction="sum") / N
        return total

    fresh = Noisy(source)
    exactly(first, double_backward(loss, model.parameters()))


@pytest.mark.parametrize("source", ["dropout", "torch", "python", "numpy"])
def test_randomness_in_evaluation_mode_is_warned_of(source):
    with pytest.warns(UserWarning, match='draws random numbers in mode="eval": they are fixed by seed=4') as record:
        HessianOperator(Noisy(source), F.cross_entropy, data(torch.float32), seed=4)
    assert record[0].filename == __file__


class Stateful(nn.Module):
    """Keeps counters and caches in plain attributes, and statistics that are used as soon as they are updated."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.calls, self.cache, self.seen = nn.Linear(D, CLASSES), 0, None, []
        self.plain = torch.zeros(())
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        self.calls += 1
        self.seen.append(x)
        self.plain += 1
        self.scale.mul_(0.5).add_(x.detach().std())
        self.cache = self.layer(x) if self.cache is None else self.cache + self.layer(x)
        return torch.tanh(self.cache) / self.scale * self.plain


@TRAINING_MODE
@BUDGETS
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_state_in_attributes_and_buffers_is_that_at_the_start_for_every_batch(mode, graph_budget):
    model, (x, y) = Stateful().double(), data()
    batches = [(x[:6], y[:6]), (x[6:], y[6:])]
    H = HessianOperator(model, F.cross_entropy, batches, mode=mode, graph_budget=graph_budget)
    found = H.to_dense()
    assert (model.calls, model.cache, model.seen) == (0, None, [])
    assert float(model.scale) == 1.0
    assert float(model.plain) == 0.0

    def loss():
        parts = [slice(0, 6), slice(6, 12)]
        scales = [0.5 + x[part].std() for part in parts]
        return sum(F.cross_entropy(torch.tanh(model.layer(x[p])) / s, y[p]) for p, s in zip(parts, scales)) / 2  # noqa: B905

    exactly(found, double_backward(loss, model.parameters()))
    assert H.loss == pytest.approx(float(loss().detach()), rel=1e-12)


class Overwriting(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(D, CLASSES)

    def forward(self, x):
        return torch.tanh(self.layer(x.sub_(x.mean(0)).mul_(2)))


@BUDGETS
@BOTH
def test_inputs_that_are_changed_in_place_are_the_same_at_each_product(kind, graph_budget):
    model, (x, y) = Overwriting().double(), data()
    operator = kind(model, F.cross_entropy, (x, y), graph_budget=graph_budget)
    first = operator.to_dense()
    exactly(x, data()[0])
    exactly(operator.to_dense(), first)
    assert operator.total_loss() == operator.loss
    if kind is HessianOperator:
        loss = lambda: F.cross_entropy(torch.tanh(model.layer(2 * (x - x.mean(0)))), y)  # noqa: E731
        check(operator, double_backward(loss, model.parameters()))


class Criterion(nn.Module):
    """A loss with a state of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("running", torch.ones(()))

    def forward(self, outputs, targets):
        self.running.mul_(0.5)
        return F.cross_entropy(outputs, targets) / self.running


@BUDGETS
def test_a_loss_with_a_state_is_a_fixed_function(graph_budget):
    torch.manual_seed(0)
    model, criterion = nn.Linear(D, CLASSES).double(), Criterion()
    H = HessianOperator(model, criterion, data(), graph_budget=graph_budget)
    check(H, 2 * dense(model))
    check(H, 2 * dense(model))
    assert float(criterion.running) == 1.0


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(D, 5), nn.BatchNorm1d(5), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.last(torch.tanh(self.norm(self.first(x))))


@TRAINING_MODE
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@BUDGETS
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("convert", [torch.jit.script, lambda model: torch.jit.trace(model.eval(), data()[0])])
def test_scripted_models_are_left_as_they_were(convert, mode, graph_budget):
    model, plain = convert(Normalized().double()), Normalized().double()
    with unchanged(model):
        H = HessianOperator(model, F.cross_entropy, data(), mode=mode, graph_budget=graph_budget)
        found = H.to_dense()
    exactly(found, found.T)
    if mode == "eval":
        exactly(found, dense(plain.eval()))


def jvp_loss(model, batch):
    outputs, slopes = torch.func.jvp(model, (batch[0],), (torch.ones_like(batch[0]),))
    return F.cross_entropy(outputs, batch[1]) + slopes.square().mean()


def jacobian_loss(model, batch):
    def single(x):
        return torch.func.functional_call(model, dict(model.named_parameters()), (x[None],))[0]

    outputs, jacobians = (torch.func.vmap(f)(batch[0]) for f in (single, torch.func.jacrev(single)))
    return F.cross_entropy(outputs, batch[1]) + jacobians.square().mean()


@BUDGETS
@pytest.mark.parametrize("loss", [jvp_loss, jacobian_loss])
def test_losses_may_use_function_transforms(loss, graph_budget):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 3), nn.Tanh(), nn.Linear(3, CLASSES)).double()
    H = HessianOperator(model, loss, data(), loss_style="model_batch", graph_budget=graph_budget)
    check(H, double_backward(lambda: loss(model, data()), model.parameters()))


@BUDGETS
def test_a_loss_may_hold_the_parameters(graph_budget):
    torch.manual_seed(0)
    model = nn.Linear(D, CLASSES).double()
    held = list(model.parameters())
    loss = lambda o, t: F.cross_entropy(o, t) + sum(p.square().sum() for p in held)  # noqa: E731
    check(HessianOperator(model, loss, data(), graph_budget=graph_budget), dense(model, loss))


@BUDGETS
@pytest.mark.parametrize("sparse", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_sparse_buffers(sparse, graph_budget):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 3), nn.Tanh(), nn.Linear(3, CLASSES)).double()
    model.register_buffer("adjacency", sparse(torch.eye(N, dtype=torch.float64).roll(1, 0)))
    model.register_forward_hook(lambda module, inputs, outputs: module.adjacency @ outputs)
    H = HessianOperator(model, F.cross_entropy, data(), graph_budget=graph_budget)
    check(H, dense(model))
    graphs = H._graphs
    H @ torch.ones(H.dim)
    assert H._graphs is graphs


# ---------------------------------------------------------------- weights that a forward pass changes


class Embedded(nn.Module):
    def __init__(self, kind=nn.Embedding, **options):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = kind(6, 3, **options), nn.Linear(3, CLASSES)

    def forward(self, x):
        hidden = self.table(x)
        return self.head(torch.tanh(hidden if hidden.ndim == 2 else hidden.sum(1)))


TOKENS = torch.randint(0, 6, (N, 2), generator=torch.Generator().manual_seed(3))


def renormalized(weight, max_norm, p=2.0):
    norms = weight.norm(p, dim=1, keepdim=True)
    return torch.where(norms > max_norm, weight * (max_norm / (norms + 1e-7)), weight)


@BUDGETS
@pytest.mark.parametrize("max_norm", [1.0, 100.0])
def test_max_norm_is_a_part_of_the_function_and_leaves_the_weights_alone(max_norm, graph_budget):
    model = Embedded(max_norm=max_norm).double()
    y = data()[1]
    before = model.table.weight.detach().clone()
    H = HessianOperator(model, F.cross_entropy, (TOKENS, y), graph_budget=graph_budget)
    found = H.to_dense()
    assert torch.equal(model.table.weight, before)
    assert model.table.max_norm == max_norm

    def loss():
        table = renormalized(model.table.weight, max_norm)
        return F.cross_entropy(model.head(torch.tanh(table[TOKENS].sum(1))), y)

    exactly(found, double_backward(loss, model.parameters()))
    assert H.loss == pytest.approx(float(loss().detach()), rel=1e-12)
    with torch.no_grad():  # the model's own value
        assert H.loss == pytest.approx(float(F.cross_entropy(copy.deepcopy(model)(TOKENS), y)), rel=1e-12)


@BUDGETS
def test_gradients_scaled_by_frequency_are_not_those_of_the_loss(graph_budget):
    model, plain = (Embedded(scale_grad_by_freq=flag).double() for flag in (True, False))
    batch = (TOKENS, data()[1])
    H = HessianOperator(model, F.cross_entropy, batch, graph_budget=graph_budget)
    check(H, dense(plain, batch=batch))
    exactly(H.gradient(), HessianOperator(plain, F.cross_entropy, batch).gradient())
    assert model.table.scale_grad_by_freq


def test_the_loss_of_a_bag_with_max_norm_is_a_function_too():
    model = Embedded(nn.EmbeddingBag, max_norm=1.0, mode="sum").double()
    with unchanged(model):
        H = HessianOperator(model, F.cross_entropy, (TOKENS, data()[1]))
    with torch.no_grad():
        assert H.loss == pytest.approx(float(F.cross_entropy(model(TOKENS), data()[1])), rel=1e-12)


class Clipping(nn.Linear):
    def forward(self, x):
        self.weight.data.clamp_(-0.1, 0.1)
        return super().forward(x)


def test_a_forward_pass_that_changes_the_weights_is_refused():
    model = Clipping(D, CLASSES).double()
    with unchanged(model), pytest.raises(ValueError, match=r"forward pass changes the weights .parameter 'weight'"):
        HessianOperator(model, F.cross_entropy, data())
    with torch.no_grad():
        model.weight.clamp_(-0.1, 0.1)
    check(HessianOperator(model, F.cross_entropy, data()), dense(model))


# ---------------------------------------------------------------- products that are not symmetric


class Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad.clamp(-0.01, 0.01)


class ClippedNet(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(D, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.head(Clipped.apply(torch.tanh(self.body(x))))


@BUDGETS
def test_gradients_that_are_no_derivatives_are_refused_where_they_show_as_asymmetry(graph_budget):
    for dtype in (torch.float32, torch.float64):
        H = HessianOperator(ClippedNet().to(dtype), F.cross_entropy, data(dtype), graph_budget=graph_budget)
        vectors = torch.randn(H.dim, 3, generator=torch.Generator().manual_seed(5))
        with pytest.raises(RuntimeError, match=r"not those of a symmetric matrix.*clipped"):
            H @ vectors


class SometimesCheckpointed(nn.Module):
    """Activation checkpointing for large batches only, or once it is turned on."""

    def __init__(self, limit):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Tanh())
        self.head, self.limit = nn.Linear(5, 3), limit

    def forward(self, x):
        if len(x) < self.limit:
            return self.head(self.block(x))
        return self.head(checkpoint(self.block, x, use_reentrant=False))


@pytest.mark.parametrize("limits", [(5, 5), (100, 2)])
@pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])
def test_checkpointing_of_later_batches_and_checkpointing_turned_on_later(kind, limits):
    torch.manual_seed(0)
    model = SometimesCheckpointed(limits[0]).double()
    x, y = torch.randn(12, 4).double(), torch.arange(12) % 3
    operator = kind(model, F.cross_entropy, [(x[:4], y[:4]), (x[4:], y[4:])])
    model.limit = limits[1]
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    matrix = operator.to_dense()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model.limit = 100
    expected = kind(model, F.cross_entropy, (x, y)).to_dense()
    torch.testing.assert_close(matrix, expected, rtol=1e-10, atol=1e-12)


class Configured(nn.Module):
    """Settings and state in nested containers and plain objects."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.options, self.config = {"head": {"scale": 1.0}}, SimpleNamespace(scale=1.0)
        self.factors, self.array = [torch.ones(3)], np.ones(3)
        self.state = SimpleNamespace(num_calls=0, means={"outputs": torch.zeros(3)})

    def forward(self, x):
        outputs = torch.tanh(self.linear(x))
        self.state.num_calls += 1
        self.state.means["outputs"].add_(outputs.detach().mean(0))
        factor = self.options["head"]["scale"] * self.config.scale * self.factors[0] * torch.from_numpy(self.array)
        return outputs * factor * (1 + self.state.means["outputs"])


CHANGES = {
    "nested dictionary": lambda model: model.options["head"].update(scale=3.0),
    "object": lambda model: setattr(model.config, "scale", 3.0),
    "tensor in a list": lambda model: model.factors[0].mul_(3.0),
    "array": lambda model: model.array.__imul__(3.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_settings_in_containers_and_objects_are_those_of_the_product(change):
    torch.manual_seed(0)
    model, x, y = Configured(), torch.randn(9, 4), torch.arange(9) % 3
    operator = HessianOperator(model, F.cross_entropy, (x, y))
    operator.to_dense()
    change(model)
    torch.testing.assert_close(operator.to_dense(), HessianOperator(model, F.cross_entropy, (x, y)).to_dense())


def test_state_in_containers_and_objects_is_restored():
    torch.manual_seed(0)
    model, x, y = Configured(), torch.randn(9, 4), torch.arange(9) % 3
    operator = HessianOperator(model, F.cross_entropy, (x, y))
    operator.to_dense()
    assert operator.total_loss() == operator.loss
    assert model.state.num_calls == 0
    assert not model.state.means["outputs"].any()


TEACHER = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()


class Distillation:
    def __init__(self, teacher):
        self.teacher = teacher

    def __call__(self, model, batch):
        return F.mse_loss(model(batch[0]), self.teacher(batch[0]).detach())


class Trainer:
    def __init__(self, teacher):
        self.teacher = teacher

    def loss(self, model, batch):
        return F.mse_loss(model(batch[0]), self.teacher(batch[0]).detach())


def distillation(model, batch, teacher):
    return F.mse_loss(model(batch[0]), teacher(batch[0]).detach())


def closure(teacher):
    return lambda model, batch: distillation(model, batch, teacher)


LOSSES_WITH_A_TEACHER = {
    "object": Distillation,
    "partial": lambda teacher: functools.partial(distillation, teacher=teacher),
    "closure": closure,
    "bound method": lambda teacher: Trainer(teacher).loss,
    "global variable": lambda teacher: lambda model, batch: distillation(model, batch, TEACHER),
}


@pytest.mark.parametrize("make", LOSSES_WITH_A_TEACHER.values(), ids=LOSSES_WITH_A_TEACHER)
def test_modules_that_a_loss_refers_to_are_left_alone(make):
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), torch.randn(9, 4).double()
    before = {name: buffer.clone() for name, buffer in TEACHER.named_buffers()}
    operator = HessianOperator(model, make(TEACHER), (x, x), loss_style="model_batch")
    operator @ torch.ones(15).double()
    operator.gradient()
    assert operator.total_loss() == operator.loss
    assert all(torch.equal(buffer, before[name]) for name, buffer in TEACHER.named_buffers())
