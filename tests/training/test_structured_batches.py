"""Training and evaluation on inputs of other kinds: what a plain network gives on the same numbers, or a refusal."""

import dataclasses

import pytest
import torch
from foreign_batches import Encoding, Graph, Reads, Sample, plain
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from renyi_lab.operators import HessianOperator
from renyi_lab.optim import RSAM
from renyi_lab.posterior import gibbs_error
from renyi_lab.training import evaluate, train

GENERATOR = torch.Generator().manual_seed(0)
N = 9
X, Y = torch.randn(N, 4, dtype=torch.float64, generator=GENERATOR), torch.arange(N) % 3
WEIGHT = torch.tensor([5.0, 1.0, 0.2]).double()
SETTINGS = {"epochs": 3, "lr": 0.05}


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def same_training(model, data, reference=(X, Y), expected=None, own=None, **settings):
    """Train ``model`` and a reference; the curves and weights must agree."""
    expected = expected or plain()
    theirs = train(expected, reference, **SETTINGS, **settings)
    history = train(model, data, **SETTINGS, **(settings if own is None else own))
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert getattr(history, name) == pytest.approx(getattr(theirs, name), rel=1e-10)
    assert history.num_gradients == theirs.num_gradients
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-10, atol=1e-12)


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    scale: torch.Tensor = dataclasses.field(default_factory=lambda: torch.tensor(1.0))


INPUTS = {
    "list": ([X / 2, X / 2], lambda inputs: inputs[0] + inputs[1]),
    "tuple": ((X / 2, X / 2), lambda inputs: inputs[0] + inputs[1]),
    "nested": ({"a": [X / 2], "b": (X / 2, 3)}, lambda inputs: inputs["a"][0] + inputs["b"][0]),
    "encoding": (Encoding(x=X), lambda inputs: inputs.x),
    "graph": (Graph(x=X), lambda inputs: inputs.x),
    "dataclass": (Sample(X, Y), lambda inputs: inputs.x),
    "frozen dataclass": (Frozen(X), lambda inputs: inputs.x * inputs.scale),
    "single precision": ([X.float()], lambda inputs: inputs[0]),
    "sparse": ({"x": X.to_sparse()}, lambda inputs: inputs["x"].to_dense()),
}


@pytest.mark.parametrize("batch_size", [4, N])
@pytest.mark.parametrize("name", INPUTS)
def test_the_model_gets_the_structure_of_its_inputs(name, batch_size):
    inputs, read = INPUTS[name]
    x = X.float().double() if name == "single precision" else X
    settings = {"batch_size": batch_size}
    same_training(
        Reads(read), (inputs, Y), (x, Y), own=settings | {"test_set": (inputs, Y)}, test_set=(x, Y), **settings
    )
    for size in (None, 4):
        found, expected = evaluate(Reads(read), (inputs, Y), batch_size=size), evaluate(plain(), (x, Y))
        assert found.loss == pytest.approx(expected.loss, rel=1e-12)
        assert (found.accuracy, found.num_samples) == (expected.accuracy, N)


class Samples(Dataset):
    def __init__(self, make):
        self.make = make

    def __len__(self):
        return N

    def __getitem__(self, index):
        return self.make(X[index]), int(Y[index])


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (lambda x: [x / 2, x / 2], lambda inputs: inputs[0] + inputs[1]),
        (lambda x: {"x": x}, lambda inputs: inputs["x"]),
    ],
)
def test_samples_of_a_data_set_are_put_into_batches(make, read):
    same_training(Reads(read), Samples(make), Samples(lambda x: x), batch_size=4)
    assert evaluate(Reads(read), Samples(make), batch_size=4).loss == pytest.approx(evaluate(plain(), (X, Y)).loss)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(Sample(X[:5], Y[:5]), Y[:5]), (Sample(X[5:], Y[5:]), Y[5:])])


LOADERS = {
    "collate_fn": lambda: DataLoader(
        Samples(lambda x: Sample(x, x)),
        batch_size=5,
        collate_fn=lambda samples: (
            Sample(torch.stack([sample.x for sample, _ in samples]), Y),
            torch.tensor([y for _, y in samples]),
        ),
    ),
    "list of batches": lambda: DataLoader(list(Stream()), batch_size=None),
    "stream": lambda: DataLoader(Stream(), batch_size=None),
    "plain samples": lambda: DataLoader(Samples(lambda x: x), batch_size=5),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_makes_its_own_batches(name):
    model, expected = Reads(lambda inputs: getattr(inputs, "x", inputs)), plain()
    history = train(model, LOADERS[name](), test_set=LOADERS[name](), momentum=0, weight_decay=0, **SETTINGS)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.05)
    for _ in range(3):
        for part in (slice(5), slice(5, None)):
            optimizer.zero_grad()
            F.cross_entropy(expected(X[part]), Y[part]).backward()
            optimizer.step()
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-10, atol=1e-12)
    assert history.test_loss[-1] == pytest.approx(evaluate(expected, (X, Y)).loss, rel=1e-10)
    assert history.num_gradients == 6
    found = evaluate(model, LOADERS[name](), loss_fn=nn.CrossEntropyLoss(weight=WEIGHT))
    assert found.loss == pytest.approx(float(F.cross_entropy(expected(X), Y, weight=WEIGHT).detach()), rel=1e-10)
    assert found.num_samples == N


def test_a_shuffling_loader_is_reproducible_and_leaves_the_global_state_alone():
    loader, state = DataLoader(Samples(lambda x: {"x": x}), batch_size=4, shuffle=True), torch.get_rng_state()
    models = [Reads(lambda inputs: inputs["x"]) for _ in range(2)]
    torch.set_rng_state(state)
    assert train(models[0], loader, **SETTINGS) == train(models[1], loader, **SETTINGS)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert torch.equal(torch.get_rng_state(), state)


def test_warm_up_counts_the_batches_of_a_loader():
    history = train(
        Reads(lambda inputs: inputs.x), LOADERS["list of batches"](), optimizer=RSAM, warmup_epochs=1, epochs=2
    )
    assert history.perturbation_norm[0] == 0 < history.perturbation_norm[1]


# --- graphs -----------------------------------------------------------------------------------------------------

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 3], [1, 2, 3, 4, 5, 6, 7, 8, 0, 4, 7]])
ADJACENCY = torch.zeros(N, N).double().index_put((EDGES[1], EDGES[0]), torch.ones(11).double()) + torch.eye(N)


class Convolution(nn.Module):
    """A graph network, with its edges in the inputs or its adjacency in a buffer."""

    def __init__(self, adjacency=None):
        super().__init__()
        self.net = plain()
        self.register_buffer("adjacency", adjacency)

    def forward(self, inputs):
        x = inputs if isinstance(inputs, torch.Tensor) else inputs.x
        return self.net[2](torch.tanh(self.spread(self.net[0](x), inputs)))

    def spread(self, features, inputs):
        if self.adjacency is not None:
            return self.adjacency @ features
        source, target = inputs.edge_index
        return features.index_add(0, target, features[source])


GRAPHS = {
    "edges": (Convolution, Graph(x=X, edge_index=EDGES)),
    "dense buffer": (lambda: Convolution(ADJACENCY), X),
    "sparse buffer": (lambda: Convolution(ADJACENCY.to_sparse()), X),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_one_batch_in_the_order_of_its_nodes(name):
    make, inputs = GRAPHS[name]
    model, expected = make(), Convolution(ADJACENCY)
    history = train(model, (inputs, Y), epochs=5, momentum=0, weight_decay=0)
    optimizer, losses = torch.optim.SGD(expected.parameters(), lr=0.1), []
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(expected(X), Y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert history.train_loss == pytest.approx(losses, rel=1e-10)
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-10, atol=1e-12)
    loss = float(F.cross_entropy(expected(X), Y).detach())
    assert evaluate(model, (inputs, Y)).loss == pytest.approx(loss, rel=1e-10)
    assert HessianOperator(model, F.cross_entropy, (inputs, Y)).loss == pytest.approx(loss, rel=1e-10)


def test_batches_of_graphs_are_weighted_by_their_nodes():
    two = Graph(x=torch.cat([X, X]), edge_index=torch.cat([EDGES, EDGES + N], 1))
    loader = DataLoader([(GRAPHS["edges"][1], Y), (two, torch.cat([Y, Y.flip(0)]))], batch_size=None)
    model = Convolution()
    outputs, targets = Convolution(ADJACENCY)(X).repeat(3, 1), torch.cat([Y, Y, Y.flip(0)])
    found = evaluate(model, loader)
    assert found.loss == pytest.approx(float(F.cross_entropy(outputs, targets).detach()), rel=1e-12)
    assert found.num_samples == 3 * N
    own = evaluate(model, loader, loss_fn=lambda o, y: F.cross_entropy(o, y))  # found to be a mean over nodes
    assert own.loss == pytest.approx(found.loss, rel=1e-12)


# --- what stays as it was ---------------------------------------------------------------------------------------


class InPlace(Reads):
    def forward(self, inputs):
        self.read(inputs).mul_(2.0)
        return super().forward(inputs)


@pytest.mark.parametrize("batch_size", [4, None])
def test_data_is_left_alone(batch_size):
    x = X.clone().requires_grad_()
    x.grad = torch.full_like(x, 7.0)
    own = Graph(x=x)
    model = InPlace(lambda inputs: inputs.x)
    train(model, (own, Y), epochs=1, batch_size=batch_size)
    evaluate(model, (own, Y), batch_size=batch_size)
    train(model, DataLoader([(own, Y)], batch_size=None), epochs=1)
    evaluate(model, DataLoader([(own, Y)], batch_size=None))
    assert own.x is x
    assert torch.equal(x.detach(), X)
    assert torch.equal(x.grad, torch.full_like(x, 7.0))


# --- refusals ---------------------------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = plain()

    def forward(self, a, b):
        return self.net(a + b)


GRAPH = (GRAPHS["edges"][1], Y)
NO_NUMBER = torch.full_like(X, torch.nan)
BOTH = pytest.mark.parametrize("call", [train, evaluate], ids=["train", "evaluate"])


@BOTH
@pytest.mark.parametrize(
    ("model", "data", "options", "error", "match"),
    [
        (TwoInputs, ([X, X], Y), {}, TypeError, r"model\(x\) with x a list; .*returns self.model\(\*x\)"),
        (TwoInputs, ({"a": X, "b": X}, Y), {}, TypeError, r"x a dict; .*returns self.model\(\*\*x\)"),
        (plain, (Sample(X, Y), Y), {}, TypeError, r"model does not take a Sample with tensors of \(9, 4\)"),
        (plain, (X, X, Y), {}, TypeError, "got tuple; for a list of batches"),
        (plain, TensorDataset(X, X, Y), {}, ValueError, r"got 3 tensors; for several inputs pass \(\[x1, x2\], y\)"),
        (plain, [(X, Y), (X, Y)], {}, TypeError, r"DataLoader\(batches, batch_size=None\)"),
        (plain, iter([(X, Y)]), {}, TypeError, r"DataLoader\(batches, batch_size=None\)"),
        (plain, Graph(x=X, y=Y), {}, TypeError, r"got Graph; pass a pair .* such as \(batch, batch.y\)"),
        (plain, {"x": X, "y": Y}, {}, TypeError, "got dict; pass a pair"),
        (plain, ([X, X], Y.tolist()), {}, TypeError, "got tuple"),
        (plain, (X.numpy(), Y.numpy()), {}, TypeError, "got tuple; use torch.from_numpy"),
        (plain, ([X, X.numpy()], Y), {}, TypeError, "a ndarray beside tensors"),
        (plain, ([X.to("meta")], Y), {}, ValueError, "on the meta device"),
        (plain, ([X, NO_NUMBER], Y), {}, ValueError, "set's inputs is not finite"),
        (plain, ([X], torch.tensor(1)), {}, ValueError, "one row per sample, got a single number"),
        (
            Convolution,
            GRAPH,
            {"batch_size": 4},
            ValueError,
            "batch_size=4 cannot cut .*its 9 targets; leave batch_size",
        ),
        (
            plain,
            LOADERS["stream"](),
            {"batch_size": 4},
            ValueError,
            "batch_size=4 has no effect on .*set, a DataLoader",
        ),
        (
            plain,
            DataLoader([Graph(x=X, y=Y)], batch_size=None),
            {},
            TypeError,
            r"each batch of a DataLoader must be a pair .*got a Graph. Return pairs .*\(batch, batch.y\)",
        ),
        (plain, DataLoader([(X, torch.tensor(1))], batch_size=None), {}, TypeError, "a row per sample; got a list"),
        (plain, DataLoader([([X, NO_NUMBER], Y)], batch_size=None), {}, ValueError, "a batch's inputs is not finite"),
        (plain, DataLoader([], batch_size=None), {}, ValueError, "the DataLoader gives no batch"),
        (plain, Samples(lambda x: Sample(x, x)), {}, TypeError, "cannot be put into batches.*pass a DataLoader"),
        (plain, Samples(lambda x: "text"), {}, TypeError, "each sample of a data set must be a pair"),
    ],
)
def test_other_data_is_refused_with_the_fix(call, model, data, options, error, match):
    with pytest.raises(error, match=match):
        call(model(), data, **options)


def test_a_loader_without_a_length_has_no_warm_up():
    with pytest.raises(TypeError, match="warmup_epochs needs a DataLoader with a length"):
        train(Reads(lambda inputs: inputs.x), LOADERS["stream"](), optimizer=RSAM, warmup_epochs=1)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (([X, X], Y), "inputs must be one tensor here, got a list"),
        (Samples(lambda x: [x, x]), "got a list as input; join its parts"),
        (LOADERS["plain samples"](), "pass loader.dataset"),
    ],
)
def test_noise_on_the_weights_needs_inputs_of_one_tensor(data, match):
    with pytest.raises(TypeError, match=match):
        gibbs_error(plain(), data, 0.1)
