"""Over batches, micro-batches and loaders, the matrix is that of the loss of all data, whatever that averages over."""

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import renyi_lab as rl
from renyi_lab.operators import GGNOperator, HessianOperator, dense_hessian, hvp

N, D, C, T = 11, 3, 4, 3
WEIGHT = torch.tensor([6.0, 1.0, 0.3, 2.0]).double()
GENERATOR = torch.Generator().manual_seed(3)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


def labels(*shape, classes=C):
    return torch.randint(0, classes, shape, generator=GENERATOR)


class PerToken(nn.Module):
    """Scores ``(N, C, T)`` of sequences ``(N, T, D)``."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, C)

    def forward(self, x):
        return torch.tanh(self.layer(x)).transpose(1, 2)


def net(outputs=C, last=()):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 3), nn.Tanh(), nn.Linear(3, outputs), *last).double()


def tokens():
    torch.manual_seed(0)
    return PerToken().double()


X, XT = normal(N, D), normal(N, T, D)
Y = labels(N)
SOME_IGNORED = torch.where(torch.arange(N) % 4 == 1, -100, Y)
YT = labels(N, T)
YT[:2, 1:], YT[4:8] = -100, -100  # whole batches and micro-batches are ignored
REAL, POSITIVE, BINARY = normal(N, C), normal(N, C).exp(), labels(N, C, classes=2).double()
PROBABILITIES = normal(N, C).softmax(1)


class Flattened(nn.CrossEntropyLoss):
    """A subclass with a forward of its own whose mean is that of its base."""

    def forward(self, outputs, targets):
        return super().forward(outputs.transpose(1, 2).flatten(0, 1), targets.flatten())


nested = functools.partial(functools.partial(F.cross_entropy, weight=torch.ones(C)), weight=WEIGHT, ignore_index=2)
CASES = {
    "partial with class weights": (net, functools.partial(F.cross_entropy, weight=WEIGHT), X, Y),
    "nested partials": (net, nested, X, Y),
    "partial of a module": (net, functools.partial(nn.CrossEntropyLoss(weight=WEIGHT)), X, Y),
    "bound forward": (net, nn.CrossEntropyLoss(weight=WEIGHT).forward, X, Y),
    "single-precision weights": (net, nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1), X, Y),
    "label smoothing": (net, nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.2, ignore_index=1), X, Y),
    "ignored labels": (net, F.cross_entropy, X, SOME_IGNORED),
    "probabilities": (net, nn.CrossEntropyLoss(weight=WEIGHT), X, PROBABILITIES),
    "nll": (lambda: net(last=[nn.LogSoftmax(1)]), nn.NLLLoss(weight=WEIGHT), X, Y),
    "partial of nll": (lambda: net(last=[nn.LogSoftmax(1)]), functools.partial(F.nll_loss, ignore_index=1), X, Y),
    "tokens": (tokens, F.cross_entropy, XT, YT),
    "weighted tokens": (tokens, nn.CrossEntropyLoss(weight=WEIGHT), XT, YT),
    "sum in a partial": (net, functools.partial(F.cross_entropy, reduction="sum"), X, Y),
    "sum of old": (net, functools.partial(F.mse_loss, size_average=False), X, REAL),
    "mse": (net, nn.MSELoss(), X, REAL),
    "smooth l1": (net, functools.partial(F.smooth_l1_loss, beta=0.5), X, REAL),
    "huber": (net, nn.HuberLoss(), X, REAL),
    "bce": (lambda: net(last=[nn.Sigmoid()]), nn.BCELoss(weight=WEIGHT), X, BINARY),
    "bce with pos_weight": (net, nn.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=WEIGHT), X, BINARY),
    "poisson": (net, nn.PoissonNLLLoss(), X, POSITIVE),
    "soft margin": (net, nn.SoftMarginLoss(), X, 2 * BINARY - 1),
    "multi-label": (net, nn.MultiLabelSoftMarginLoss(weight=WEIGHT), X, BINARY),
    "kl batchmean": (lambda: net(last=[nn.LogSoftmax(1)]), nn.KLDivLoss(reduction="batchmean"), X, PROBABILITIES),
    "partial kl batchmean": (
        lambda: net(last=[nn.LogSoftmax(1)]),
        functools.partial(F.kl_div, reduction="batchmean", log_target=True),
        X,
        PROBABILITIES.log(),
    ),
    "custom mean": (net, lambda o, y: ((o - y) ** 4).sum(1).mean(), X, REAL),
    "gaussian nll": (net, lambda o, y: F.gaussian_nll_loss(o[:, :2], y[:, :2], o[:, 2:].exp()), X, REAL),
    "cosine": (net, lambda o, y: F.cosine_embedding_loss(o, y, torch.ones(len(y)).double()), X, REAL),
    "triplet": (net, lambda o, y: F.triplet_margin_loss(o, y, -y), X, REAL),
    "squeezed": (lambda: net(1), lambda o, y: F.mse_loss(o.squeeze(1), y), X, REAL[:, 0]),
    "reshaped tokens": (
        tokens,
        lambda o, y: F.cross_entropy(o.transpose(1, 2).flatten(0, 1), y.flatten()),
        XT,
        YT.clamp(min=0),
    ),
    "log partition with a penalty": (net, lambda o, y: F.cross_entropy(o, y) + 0.1, X, Y),
}
WARNED = pytest.mark.filterwarnings("ignore:size_average and reduce:UserWarning")


def loader(x, y, size=3):
    return DataLoader(TensorDataset(x, y), batch_size=size)


def exactly(actual, expected, tolerance=1e-11):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@WARNED
@pytest.mark.parametrize("case", CASES)
def test_batches_and_micro_batches_give_the_matrix_and_the_loss_of_all_data(case):
    make, loss_fn, x, y = CASES[case]
    model = make()
    expected, loss = double_backward(model, lambda: loss_fn(model(x), y))
    for operator in (
        HessianOperator(model, loss_fn, loader(x, y)),
        HessianOperator(model, loss_fn, loader(x, y, 2), graph_budget=0),
        HessianOperator(model, loss_fn, loader(x, y, 1)),
        HessianOperator(model, loss_fn, (x, y), micro_batch_size=4),
        HessianOperator(model, loss_fn, (x, y), micro_batch_size=1),
        HessianOperator(model, loss_fn, loader(x, y, 5), micro_batch_size=2),
    ):
        exactly(operator.to_dense(), expected)
        assert operator.loss == pytest.approx(loss, rel=1e-12)
    evaluation = rl.evaluate(model, (x, y), loss_fn=loss_fn, batch_size=2)
    assert evaluation.loss == pytest.approx(loss, rel=1e-12)
    gauss_newton = GGNOperator(model, loss_fn, loader(x, y)).to_dense()
    exactly(gauss_newton, GGNOperator(model, loss_fn, (x, y)).to_dense())


def double_backward(model, loss):
    """The dense Hessian and the loss, from ``loss()`` over all data."""
    model.eval()
    value = loss()
    parameters = list(model.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    columns = [hvp(loss(), parameters, unit) for unit in torch.eye(size, dtype=torch.float64)]
    return torch.stack(columns, 1), float(value.detach())


# ---------------------------------------------------------------- masses that only the user knows


class LanguageModel(nn.Module):
    """As a language model of Hugging Face: returns an object with the mean loss over the labels that are not -100."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(C, D), nn.Linear(D, C)

    def forward(self, input_ids, labels, attention_mask=None):
        scores = self.head(torch.tanh(self.embedding(input_ids)))
        shifted = F.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(loss=shifted, logits=scores)


def model_loss(model, batch):
    return model(**batch).loss


def language_batches(lengths=((5, 2), (5, 4), (4, 1))):
    """Padded batches of different length, with the last one wholly ignored."""
    batches = []
    for width, counted in lengths:
        ids = labels(3, width)
        targets = ids.clone()
        targets[0, counted:] = -100
        batches.append({"input_ids": ids, "labels": targets, "attention_mask": (targets != -100).long()})
    batches.append({"input_ids": labels(2, 4), "labels": torch.full((2, 4), -100)})
    return batches


def counted_labels(batch):
    return (batch["labels"][:, 1:] != -100).sum()


def test_a_language_model_over_padded_batches():
    model, batches = LanguageModel().double(), language_batches()
    total = sum(int(counted_labels(batch)) for batch in batches)

    def loss():
        return sum(model_loss(model, b) * counted_labels(b) for b in batches[:-1]) / total

    expected, value = double_backward(model, loss)
    operator = HessianOperator(model, model_loss, batches, batch_mass=counted_labels)
    exactly(operator.to_dense(), expected)
    assert operator.loss == pytest.approx(value, rel=1e-12)
    assert (operator.total_mass, operator.num_samples, len(operator.batches)) == (total, 11, 3)
    exactly(
        HessianOperator(model, model_loss, batches, batch_mass=counted_labels, micro_batch_size=1).to_dense(), expected
    )
    report = rl.sharpness_report(model, model_loss, batches, batch_mass=counted_labels, num_matvecs=5, blocks=False)
    assert report["gradient_norm"].value == pytest.approx(float(operator.gradient().norm()), rel=1e-9)


def graph_batches():
    """Batches of graphs: nodes, edges as pairs of nodes, the graph of each node, and a target for each graph."""
    batches = []
    for sizes in ((2, 3), (4,), (1, 2, 2)):
        graph = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        nodes = len(graph)
        edges = labels(2, 2 * nodes, classes=nodes)
        batches.append({"x": normal(nodes, D), "edges": edges, "graph": graph, "y": normal(len(sizes), 1)})
    return batches


def graph_loss(model, batch):
    source, target = batch["edges"]
    messages = torch.zeros_like(batch["x"]).index_add(0, target, batch["x"][source])
    nodes = model(batch["x"] + messages)
    pooled = torch.zeros(len(batch["y"]), 1, dtype=nodes.dtype).index_add(0, batch["graph"], nodes)
    return F.mse_loss(pooled, batch["y"])


def test_a_batch_of_graphs():
    model, batches = net(1), graph_batches()
    total = sum(len(batch["y"]) for batch in batches)
    expected, _ = double_backward(model, lambda: sum(graph_loss(model, b) * len(b["y"]) for b in batches) / total)
    exactly(HessianOperator(model, graph_loss, batches, batch_mass=lambda batch: len(batch["y"])).to_dense(), expected)
    exactly(
        HessianOperator(model, graph_loss, batches[0]).to_dense(),
        HessianOperator(model, graph_loss, batches[:1]).to_dense(),
    )


class TimeFirst(nn.Module):
    """Scores ``(T, N, C)`` of sequences ``(T, N, D)`` by a recurrent network."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.RNN(D, 2), nn.Linear(2, C)

    def forward(self, x):
        return self.head(self.cell(x)[0])


def token_loss(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def test_time_first_sequences():
    model, x, y = TimeFirst().double(), normal(5, 7, D), labels(5, 7)
    expected, _ = double_backward(model, lambda: token_loss(model(x), y))
    parts = [(x[:, :4], y[:, :4]), (x[:, 4:], y[:, 4:])]
    exactly(HessianOperator(model, token_loss, parts, batch_mass=lambda batch: batch[1].numel()).to_dense(), expected)
    with pytest.raises(ValueError, match=r"targets differ in shape beyond the first dimension.*batch_mass="):
        HessianOperator(model, token_loss, parts)


RAGGED = [(normal(2, length, D), normal(2, length, C)) for length in (2, 5, 3)]


class Identity(nn.Linear):
    """One linear map of every position of sequences of any length."""


def test_means_over_elements_of_batches_of_different_length():
    model = Identity(D, C).double()
    total = sum(y.numel() for _, y in RAGGED)
    expected, _ = double_backward(model, lambda: sum(F.mse_loss(model(x), y) * y.numel() for x, y in RAGGED) / total)
    operator = HessianOperator(model, nn.MSELoss(), RAGGED)
    exactly(operator.to_dense(), expected)
    assert operator.total_mass == total
    assert ", mean over 80 elements)" in repr(operator)


# ---------------------------------------------------------------- what the text says


@pytest.mark.parametrize(
    ("loss_fn", "targets", "options", "text"),
    [
        (F.cross_entropy, Y, {}, "mean over 11 samples"),
        (F.cross_entropy, SOME_IGNORED, {}, "mean over 8 labels"),
        (
            nn.CrossEntropyLoss(weight=torch.full((C,), 2.0).double()),
            Y,
            {},
            "mean over labels of total class weight 22",
        ),
        (lambda o, y: F.cross_entropy(o, y), Y, {}, "mean over 11 samples (assumed)"),
        (lambda o, y: F.cross_entropy(o, y), Y, {"batch_mass": len}, "mean weighted by batch_mass"),
        (nn.CrossEntropyLoss(reduction="sum"), Y, {}, "sum"),
        (nn.MSELoss(), REAL, {}, "mean over 44 elements"),
    ],
)
def test_the_representation_says_what_the_mean_is_over(loss_fn, targets, options, text):
    operator = HessianOperator(net(), loss_fn, (X, targets), **options)
    known = f"dim=28, num_samples=11, loss={operator.loss:.4g}, float64 on cpu"
    assert repr(operator) == f"HessianOperator({known}, {text})".replace("\\", "")


# ---------------------------------------------------------------- refusals

weighted = functools.partial(F.cross_entropy, weight=WEIGHT)
HIDDEN = [(X[:5], Y[:5]), (X[5:], Y[5:])]
IGNORED = torch.full((N,), -100)


TIME_FIRST = normal(6, 5, D), labels(6, 5)


def random_loss(model, batch):
    return F.cross_entropy(model(batch[0] + 0.1 * torch.randn_like(batch[0])), batch[1])


def mixing():
    return nn.Sequential(nn.Linear(D, C), nn.BatchNorm1d(C, track_running_stats=False)).double()


def hessian(loss_fn, data=HIDDEN, model=None, **options):
    return HessianOperator(model or net(), loss_fn, data, **options)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: hessian(lambda o, y: weighted(o, y)), ValueError, "is not a mean over the samples.*Pass batch_mass="),
        (lambda: hessian(lambda o, y: weighted(o, y), (X, Y), micro_batch_size=4), ValueError, "Pass batch_mass="),
        (
            lambda: hessian(lambda m, b: model_loss(m, b), language_batches()[:2], LanguageModel()),
            ValueError,
            "is not a mean over the samples.*Pass batch_mass=",
        ),
        (
            lambda: hessian(model_loss, language_batches(((5, 5), (4, 4)))[:2], LanguageModel()),
            ValueError,
            r"differ in shape beyond the first dimension, \(…, 5\) and \(…, 4\).*batch_mass=",
        ),
        (lambda: hessian(graph_loss, graph_batches(), net(1)), ValueError, "cannot be cut into samples.*batch_mass="),
        (
            lambda: hessian(model_loss, language_batches(), LanguageModel()),
            ValueError,
            "is NaN.*batch_mass=",
        ),
        (
            lambda: hessian(lambda o, y: F.cross_entropy(o, y, reduction="sum")),
            ValueError,
            'It is a sum: pass reduction="sum"',
        ),
        (
            lambda: hessian(lambda o, y: F.cross_entropy(o, y), reduction="sum"),
            ValueError,
            'It is a mean: pass reduction="mean"',
        ),
        (lambda: hessian(lambda o, y: (o @ o.T).logsumexp(1).mean()), ValueError, "is not a mean over the samples"),
        (lambda: hessian(random_loss, loss_style="model_batch"), ValueError, "the loss is random.*batch_mass="),
        (lambda: hessian(F.cross_entropy, (X, IGNORED)), ValueError, r"every label is ignored \(ignore_index=-100\)"),
        (
            lambda: hessian(nn.CrossEntropyLoss(weight=torch.zeros(C).double())),
            ValueError,
            "every label is ignored or has class weight 0",
        ),
        (
            lambda: hessian(model_loss, language_batches()[3:], LanguageModel(), batch_mass=counted_labels),
            ValueError,
            "batch_mass is 0 for every batch",
        ),
        (
            lambda: hessian(F.cross_entropy, batch_mass=lambda b: -1),
            ValueError,
            "batch_mass must return a finite .* got -1",
        ),
        (lambda: hessian(F.cross_entropy, batch_mass=lambda b: b[1]), TypeError, "batch_mass must return one number"),
        (lambda: hessian(F.cross_entropy, batch_mass=3), TypeError, "batch_mass must be a function .* got int"),
        (lambda: hessian(weighted, batch_mass=lambda b: len(b[1])), ValueError, "leave batch_mass out"),
        (lambda: hessian(nn.MSELoss(reduction="sum"), batch_mass=len), ValueError, "reduction is 'sum'; leave it out"),
        (lambda: hessian(weighted, reduction="sum"), ValueError, "reduction='sum' contradicts loss_fn, .* 'mean'"),
        (lambda: hessian(functools.partial(F.mse_loss, reduction="none")), ValueError, "got 'none'"),
        (
            lambda: hessian(F.cross_entropy, TIME_FIRST, tokens_of_time(), micro_batch_size=2),
            ValueError,
            "micro_batch_size=2 cuts batches along their first dimension, but",
        ),
        (lambda: hessian(F.cross_entropy, (X, Y), mixing(), micro_batch_size=4), ValueError, "the model mixes samples"),
        (
            lambda: rl.sharpness_report(tokens_of_time(), F.cross_entropy, TIME_FIRST, num_samples=3),
            ValueError,
            "num_samples takes some of the samples, but",
        ),
    ],
)
def test_means_that_are_refused_with_the_fix(call, error, match):
    with pytest.raises(error, match=match):
        call()


def tokens_of_time():
    """Scores ``(T, C, N)`` of sequences with time first."""

    class Transposed(TimeFirst):
        def forward(self, x):
            return super().forward(x).transpose(1, 2)

    return Transposed().double()


ONE = X[:, :1]
FLAT, COLUMN = REAL[:, 0], REAL[:, :1]
ELEMENTWISE = [
    *(nn.MSELoss(), F.mse_loss, nn.L1Loss(), F.l1_loss, nn.SmoothL1Loss(), nn.HuberLoss(), nn.PoissonNLLLoss()),
    *(nn.BCEWithLogitsLoss(), functools.partial(F.huber_loss, delta=2.0), nn.SoftMarginLoss(), nn.KLDivLoss()),
    *(nn.HingeEmbeddingLoss(), functools.partial(functools.partial(F.smooth_l1_loss, beta=0.1), reduction="sum")),
    *(lambda o, y: F.mse_loss(o, y), lambda o, y: (o - y).abs().mean(), lambda o, y: ((o - y) ** 2).sum()),
]


@pytest.mark.parametrize("loss_fn", ELEMENTWISE)
@pytest.mark.parametrize("flat_outputs", [False, True])
def test_shapes_that_would_be_broadcast_are_refused_everywhere(loss_fn, flat_outputs):
    model = net(1, [nn.Flatten(0)] if flat_outputs else [])
    data = (X, COLUMN if flat_outputs else FLAT)
    shapes = r"\(11,\) but targets \(11, 1\)" if flat_outputs else r"\(11, 1\) but targets \(11,\)"
    for call in (
        lambda: HessianOperator(model, loss_fn, data),
        lambda: GGNOperator(model, loss_fn, data),
        lambda: rl.sharpness_report(model, loss_fn, data),
        lambda: rl.evaluate(model, data, loss_fn=loss_fn),
        lambda: rl.train(model, data, loss_fn=loss_fn, epochs=1),
    ):
        with pytest.raises(ValueError, match=f"outputs have shape {shapes}; reshape the targets, as in y"):
            call()


@pytest.mark.parametrize("loss_fn", [nn.MSELoss(), lambda o, y: ((o - y) ** 2).mean()])
def test_as_many_outputs_as_samples_are_not_broadcast_either(loss_fn):
    model = net(N)
    with pytest.raises(ValueError, match=r"outputs have shape \(11, 11\) but targets \(11,\)"):
        HessianOperator(model, loss_fn, (X, FLAT))


def quantiles(outputs, targets):
    levels = torch.tensor([0.1, 0.5, 0.9]).double()
    return torch.maximum(levels * (targets - outputs), (levels - 1) * (targets - outputs)).mean()


@pytest.mark.parametrize(
    ("outputs", "loss_fn", "targets"),
    [
        (3, quantiles, COLUMN),
        (1, lambda o, y: F.mse_loss(o[:, 0], y), FLAT),
        (1, lambda o, y: F.l1_loss(o[:, 0], y), FLAT + 100),
        (1, lambda o, y: F.binary_cross_entropy_with_logits(o[:, 0], y.double()), labels(N, classes=2)),
        (1, lambda o, y: torch.tanh(o.square().mean()), FLAT),
        (1, lambda o, y: ((o - y[:, None]) ** 2).mean().sqrt(), FLAT),
    ],
)
def test_a_loss_that_reshapes_or_broadcasts_within_a_sample_is_accepted(outputs, loss_fn, targets):
    model = net(outputs)
    expected, _ = double_backward(model, lambda: loss_fn(model(X), targets))
    exactly(HessianOperator(model, loss_fn, (X, targets)).to_dense(), expected)
    assert rl.train(model, (X, targets), loss_fn=loss_fn, epochs=1, batch_size=N).epochs == 1


def test_dense_hessian_is_the_same_reference():
    make, loss_fn, x, y = CASES["tokens"]
    model = make()
    exactly(dense_hessian(model, loss_fn, (x, y)), double_backward(model, lambda: loss_fn(model(x), y))[0])


def test_equal_shares_of_ignored_labels_in_both_parts_of_small_batches_are_noticed():
    model = nn.Linear(4, 3).double()
    labels = [torch.tensor(each) for each in ([-100, 1, -100, 2], [0, 1, 2, 0])]  # halves of each alike
    batches = [(torch.randn(4, 4, dtype=torch.float64), each) for each in labels]
    with pytest.raises(ValueError, match="batch_mass="):
        HessianOperator(model, lambda outputs, y: F.cross_entropy(outputs, y), batches)
