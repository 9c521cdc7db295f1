"""Data, models and parameters of other kinds: the dense Hessian's values, or a refusal that names the fix."""

import copy
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from foreign_batches import Encoding, Graph, Reads, Sample, plain
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from renyi_lab.operators import GGNOperator, HessianOperator, dense_hessian, hvp
from renyi_lab.sharpness import sharpness_report
from renyi_lab.training import evaluate, train

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(9, 4, dtype=torch.float64, generator=GENERATOR), torch.arange(9) % 3
BOTH = pytest.mark.parametrize("kind", [HessianOperator, GGNOperator])


def exactly(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- structures

INPUTS = {
    "list": ([X / 2, X / 2], lambda inputs: inputs[0] + inputs[1]),
    "tuple": ((X / 2, X / 2), lambda inputs: inputs[0] + inputs[1]),
    "dictionary": ({"a": X / 2, "b": X / 2}, lambda inputs: inputs["a"] + inputs["b"]),
    "graph": (Graph(x=X), lambda inputs: inputs.x),
    "dataclass": (Sample(X, Y), lambda inputs: inputs.x),
}


@BOTH
@pytest.mark.parametrize("name", INPUTS)
def test_the_model_gets_the_structure_of_its_inputs(kind, name):
    inputs, read = INPUTS[name]
    expected = kind(plain(), F.cross_entropy, (X, Y)).to_dense()
    exactly(kind(Reads(read), F.cross_entropy, (inputs, Y)).to_dense(), expected)
    exactly(kind(Reads(read), F.cross_entropy, [(inputs, Y)]).to_dense(), expected)
    exactly(kind(Reads(read), F.cross_entropy, (inputs, Y), micro_batch_size=4).to_dense(), expected)


def test_a_report_takes_subsets_of_structured_inputs():
    inputs, read = INPUTS["list"]
    options = {"num_matvecs": 5, "blocks": False, "num_samples": 6, "perturbation_samples": 4}
    report = sharpness_report(Reads(read), F.cross_entropy, (inputs, Y), **options)
    expected = sharpness_report(plain(), F.cross_entropy, (X, Y), **options)
    for measure in ("trace", "relative_flatness", "sam_sharpness_l2", "average_case_sharpness"):
        assert report[measure].value == pytest.approx(expected[measure].value, rel=1e-8)


BATCHES = {
    "dataclass": Sample(X, Y),
    "encoding": Encoding(x=X, y=Y),
    "graph": Graph(x=X, y=Y),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_with_attributes_reach_the_loss_as_they_are(name):
    def loss(model, batch):
        return F.cross_entropy(model(batch.x), batch.y)

    for data in (BATCHES[name], [BATCHES[name]]):
        H = HessianOperator(plain(), loss, data)
        exactly(H.to_dense(), dense_hessian(plain(), F.cross_entropy, (X, Y)))


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*beta state")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_inputs_have_the_matrix_of_dense_ones(layout):
    x = X.relu()
    expected = dense_hessian(plain(), F.cross_entropy, (x, Y))
    for size in (None, 4):
        data = (x.to_sparse(layout=layout), Y)
        exactly(HessianOperator(plain(), F.cross_entropy, data, micro_batch_size=size).to_dense(), expected)


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*beta state")
def test_sparse_inputs_are_trained_on_and_evaluated():
    x = X.relu()
    models = plain(), plain()
    losses = [
        train(model, (inputs, Y), epochs=2, batch_size=4, lr=0.01).train_loss
        for model, inputs in zip(models, (x, x.to_sparse()), strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1])
    results = [evaluate(models[0], (inputs, Y)).loss for inputs in (x, x.to_sparse())]
    assert results[0] == pytest.approx(results[1])


def test_gradients_of_inputs_are_left_alone():
    x = X.clone().requires_grad_()
    x.grad = torch.full_like(x, 7.0)
    H = HessianOperator(plain(), F.cross_entropy, (x, Y))
    exactly(H.to_dense(), dense_hessian(plain(), F.cross_entropy, (X, Y)))
    H.gradient()
    sharpness_report(plain(), F.cross_entropy, (x, Y), num_matvecs=4, blocks=False)
    assert torch.equal(x.grad, torch.full_like(x, 7.0))
    assert x.requires_grad


# ---------------------------------------------------------------- models


class Convolution(nn.Module):
    """A layer of a graph network with its sparse adjacency in a buffer."""

    def __init__(self, layout):
        super().__init__()
        torch.manual_seed(0)
        self.net = plain()
        adjacency = (torch.rand(9, 9, dtype=torch.float64) < 0.4) + torch.eye(9, dtype=torch.float64)
        self.register_buffer("adjacency", adjacency if layout == torch.strided else adjacency.to_sparse(layout=layout))

    def forward(self, x):
        return self.net[2](torch.tanh(self.adjacency @ self.net[0](x)))


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*beta state")
@BOTH
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_buffer_acts_as_a_dense_one(kind, layout):
    model = Convolution(layout)
    before = model.adjacency.to_dense().clone()
    operator = kind(model, F.cross_entropy, (X, Y))
    expected = kind(Convolution(torch.strided), F.cross_entropy, (X, Y)).to_dense()
    exactly(operator.to_dense(), expected)
    assert operator.num_batches_kept == 1
    assert torch.equal(model.adjacency.to_dense(), before)
    model.adjacency = (2 * before).to_sparse(layout=layout)  # a change is noticed
    changed = Convolution(torch.strided)
    changed.adjacency *= 2
    exactly(operator.to_dense(), kind(changed, F.cross_entropy, (X, Y)).to_dense())


class Wrapped(nn.Module):
    """What `torch.compile` returns, as far as names go."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model

    def forward(self, x):
        return self._orig_mod(x)


WRAPPERS = {
    "compiled": (Wrapped, "_orig_mod."),
    "data-parallel": (nn.DataParallel, "module."),
    "both": (lambda model: Wrapped(nn.DataParallel(model)), "_orig_mod.module."),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_names_may_have_the_prefixes_of_wrappers(name):
    wrap, prefix = WRAPPERS[name]
    model = wrap(plain())
    assert prefix + "0.weight" in model.state_dict()
    for selection, expected in {
        "0.weight": ["0.weight"],
        prefix + "0.weight": ["0.weight"],
        prefix + "2": ["2.weight", "2.bias"],
        prefix + "*.bias": ["0.bias", "2.bias"],
        prefix[:-1]: ["0.weight", "0.bias", "2.weight", "2.bias"],
    }.items():
        H = HessianOperator(model, F.cross_entropy, (X, Y), params=selection)
        assert list(H.parameter_names) == expected
    plain_model = HessianOperator(plain(), F.cross_entropy, (X, Y), params="2.weight")
    H = HessianOperator(model, F.cross_entropy, (X, Y), params=prefix + "2.weight")
    exactly(H.to_dense(), plain_model.to_dense())
    initial = copy.deepcopy(model.state_dict())
    moved = plain()
    moved[0].weight.data += 1.0
    for state in (initial, plain().state_dict()):
        report = sharpness_report(
            wrap(moved), F.cross_entropy, (X, Y), initial_parameters=state, num_matvecs=4, blocks=False
        )
        assert report["distance_from_initialization"].value == pytest.approx(12**0.5)


def test_names_inside_a_compiled_layer_may_leave_its_prefix_out():
    model = plain()
    model[0] = Wrapped(model[0])
    for selection in ("0.weight", "0._orig_mod.weight"):
        H = HessianOperator(model, F.cross_entropy, (X, Y), params=selection)
        exactly(H.to_dense(), dense_hessian(plain(), F.cross_entropy, (X, Y))[:12, :12])


def test_a_layer_that_is_called_module_keeps_its_name():
    model = nn.ModuleDict({"module": nn.Linear(4, 3), "other": nn.Linear(4, 3)}).double()
    model.forward = lambda x: model["module"](x) + model["other"](x)
    for selection, dim in (("module.weight", 12), ("module", 15), ("other.weight", 12)):
        assert HessianOperator(model, F.cross_entropy, (X, Y), params=selection).dim == dim


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, X)], ids=["script", "trace"])
def test_torchscript_has_the_matrix_of_the_module(make):
    expected = dense_hessian(plain(), F.cross_entropy, (X, Y))
    for budget in (None, 0):
        H = HessianOperator(make(plain()), F.cross_entropy, (X, Y), graph_budget=budget)
        for _ in range(3):  # optimised after the first runs
            exactly(H.to_dense(), expected)


class ComplexScale(nn.Module):
    def __init__(self, as_real):
        super().__init__()
        self.net, self.as_real = plain(), as_real
        scale = torch.tensor([1 + 1j, 2 - 1j, 0.5j], dtype=torch.complex128)
        self.scale = nn.Parameter(torch.view_as_real(scale) if as_real else scale)

    def forward(self, x):
        scale = torch.view_as_complex(self.scale) if self.as_real else self.scale
        return (self.net(x) * scale).abs()


def test_a_complex_parameter_as_two_reals_has_the_matrix_of_these():
    model = ComplexScale(True)
    H = HessianOperator(model, F.cross_entropy, (X, Y))
    parameters, unit_vectors = list(model.parameters()), torch.eye(H.dim, dtype=torch.float64)
    columns = [hvp(F.cross_entropy(model(X), Y), parameters, column) for column in unit_vectors]
    exactly(H.to_dense(), torch.stack(columns))
    report = sharpness_report(model, F.cross_entropy, (X, Y), num_matvecs=4, blocks=False)
    assert report["sam_sharpness_l2"].value > 0


def test_real_parameters_beside_complex_ones_can_be_selected():
    expected = HessianOperator(ComplexScale(True), F.cross_entropy, (X, Y)).to_dense()
    H = HessianOperator(ComplexScale(False), F.cross_entropy, (X, Y), params="net")
    exactly(H.to_dense(), expected[6:, 6:])


def exported():
    return torch.export.export(plain(), (X,))


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(plain().float(), {nn.Linear}, dtype=torch.qint8)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = plain()

    def forward(self, a, b):
        return self.net(a + b)


def operator(model, data=(X, Y), **options):
    return HessianOperator(model, F.cross_entropy, data, **options)


NO_MODELS = {
    "an export": (lambda: exported(), TypeError, "got ExportedProgram; pass the module that torch.export was given"),
    "an exported module": (lambda: exported().module(), TypeError, r"GraphModule\) does not support train\(\)"),
    "a class": (lambda: nn.Identity, TypeError, "got type; pass an instance of the class"),
    "a function": (lambda: lambda x: x, TypeError, "got function; pass the module that the function calls"),
    "lazy": (lambda: nn.LazyLinear(3), ValueError, "'weight' is not initialised yet .*run the model once on a batch"),
    "without values": (lambda: nn.Linear(4, 3, device="meta"), ValueError, "'weight' is on the meta device.*to_empty"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", NO_MODELS)
@pytest.mark.parametrize(
    "call",
    [
        operator,
        lambda model: sharpness_report(model, F.cross_entropy, (X, Y)),
        lambda model: train(model, (X, Y), epochs=1),
        lambda model: evaluate(model, (X, Y)),
    ],
    ids=["operator", "report", "train", "evaluate"],
)
def test_models_that_cannot_be_evaluated_are_refused(call, name):
    make, error, match = NO_MODELS[name]
    with pytest.raises(error, match=match):
        call(make())


ARRAYS = pd.DataFrame(X.numpy()), pd.Series(Y.numpy())


@pytest.mark.filterwarnings("ignore:.*prototype stage", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: operator(quantised()), TypeError, "'0' is quantised.*the model from before quantisation"),
        (lambda: operator(plain().requires_grad_(False)), ValueError, r"Call requires_grad_\(True\)"),
        (lambda: operator(nn.ReLU()), ValueError, "no parameters.*quantisation"),
        (lambda: operator(ComplexScale(False)), ValueError, r"'scale' is complex .*view_as_real.*leave it out"),
        (lambda: operator(nn.Linear(4, 3, dtype=torch.complex64)), ValueError, "'weight' is complex"),
        (
            lambda: operator(TwoInputs(), ([X, X], Y)),
            TypeError,
            r"'b'. The model is called as model\(x\) with x a list.*model_batch.*loss\(model\(\*batch\[0\]\), batc",
        ),
        (lambda: operator(TwoInputs(), ({"a": X, "b": X}, Y)), TypeError, r"x a dict.*model\(\*\*batch\[0\]\)"),
        (lambda: operator(plain(), (X.numpy(), Y.numpy())), TypeError, "use torch.from_numpy"),
        (lambda: operator(plain(), [(X, Y.numpy())]), TypeError, r"a ndarray beside tensors.*from_numpy\(array\)"),
        (lambda: operator(plain(), [(X.numpy(), Y)]), TypeError, "a ndarray beside tensors"),
        (lambda: operator(plain(), ARRAYS), TypeError, "use torch.from_numpy"),
        (lambda: operator(plain(), [(X, ARRAYS[1])]), TypeError, r"Series beside.*from_numpy\(data.to_numpy\(\)\)"),
        (lambda: operator(plain(), [{"x": X, "w": np.ones(9)}]), TypeError, "a ndarray beside tensors"),
        (lambda: operator(plain(), (X.to("meta"), Y)), ValueError, "tensor on the meta device"),
        (
            lambda: operator(plain(), (torch.nested.nested_tensor(list(X)), Y)),
            TypeError,
            "a nested tensor.*to_padded_tensor",
        ),
    ],
)
def test_messages(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_batch_that_refers_to_itself_is_refused():
    batch = [X, Y]
    batch.append(batch)
    with pytest.raises(TypeError, match="a list that refers back to itself; pass its tensors in a dictionary"):
        operator(plain(), [batch])


def test_several_arguments_by_the_suggested_loss():
    H = HessianOperator(
        TwoInputs(),
        lambda model, batch: F.cross_entropy(model(*batch[0]), batch[1]),
        ([X / 2, X / 2], Y),
        loss_style="model_batch",
    )
    exactly(H.to_dense(), dense_hessian(plain(), F.cross_entropy, (X, Y)))


class Doubled(TensorDataset):
    """Samples that are not the rows of its tensors, as under augmentation."""

    def __getitem__(self, index):
        inputs, target = super().__getitem__(index)
        return 2 * inputs, target


def test_data_sets_derived_from_tensor_data_sets_are_asked_for_their_samples():
    expected = HessianOperator(plain(), F.cross_entropy, (2 * X, Y))
    exactly(HessianOperator(plain(), F.cross_entropy, Doubled(X, Y)).to_dense(), expected.to_dense())
    loader = DataLoader(Doubled(X, Y), batch_size=4)
    for data in (Doubled(X, Y), loader):
        assert evaluate(plain(), data).loss == pytest.approx(expected.loss, rel=1e-12)
    first, second = plain(), plain()
    train(first, Doubled(X, Y), epochs=2, lr=0.01)
    train(second, (2 * X, Y), epochs=2, lr=0.01)
    exactly(first[0].weight, second[0].weight)
