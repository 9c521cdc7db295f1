import contextlib
import warnings

import curvlinops
import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from once_differentiable import OnceDifferentiable
from restless import unchanged
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from renyi_lab.operators import HessianOperator, dense_hessian, hvp

N, D, CLASSES = 17, 4, 3


def tanh_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()


def data(n=N, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, dtype=torch.float64, generator=generator), torch.arange(n) % CLASSES


def probe(n, seed=2):
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ragged(size=5):
    return DataLoader(TensorDataset(*data()), batch_size=size)


def differences(operator, v, step=1e-5):
    """H v from two gradients, the third route besides double backward and torch.func."""
    parameters = dict(operator.model.named_parameters())
    flat = torch.cat([parameters[name].detach().reshape(-1) for name in operator.parameter_names])
    sizes = [parameters[name].numel() for name in operator.parameter_names]

    def gradient_at(vector):
        for name, part in zip(operator.parameter_names, vector.split(sizes), strict=True):
            parameters[name].data.copy_(part.reshape(parameters[name].shape))
        return operator.gradient()

    try:
        return (gradient_at(flat + step * v) - gradient_at(flat - step * v)) / (2 * step)
    finally:
        gradient_at(flat)


def exactly(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- the right matrix


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.1)])
def test_equals_the_dense_reference(loss):
    model = tanh_net()
    H, dense = HessianOperator(model, loss, data()), dense_hessian(model, loss, data())
    v, V = probe(43), torch.stack([probe(43, seed) for seed in range(3)], 1)
    exactly(H @ v, dense @ v)
    exactly(H @ V, dense @ V)
    exactly(H.to_dense(), dense)
    assert dense.abs().max() > 0.01
    assert H.loss == pytest.approx(float(loss(model(data()[0]), data()[1]).detach()), rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equals_curvlinops_on_the_whole_data(reduction):
    # curvlinops adds the batches' losses up and divides a mean by the number of samples of all of them
    model, loss = tanh_net(), nn.CrossEntropyLoss(reduction=reduction)
    foreign = curvlinops.HessianLinearOperator(model, loss, list(model.parameters()), list(ragged()))
    exactly(HessianOperator(model, loss, ragged()) @ probe(43), foreign @ probe(43))


def test_equals_differences_of_the_gradient():
    H = HessianOperator(tanh_net(), F.cross_entropy, ragged())
    exactly(H @ probe(43), differences(H, probe(43)), 1e-8)


def test_gradient_is_that_of_the_loss_over_all_batches():
    model, (x, y) = tanh_net(), data()
    expected = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    exactly(HessianOperator(model, F.cross_entropy, ragged()).gradient(), torch.cat([g.reshape(-1) for g in expected]))


def test_shortest_form_agrees_for_any_iterable_of_parameters():
    model, (x, y) = tanh_net(), data()
    expected = dense_hessian(model, F.cross_entropy, data()) @ probe(43)
    exactly(hvp(F.cross_entropy(model(x), y), model.parameters(), probe(43)), expected)
    assert all(p.grad is None for p in model.parameters())


def test_shortest_form_gives_zero_for_linear_losses_and_unused_parameters():
    used, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    assert hvp(used.sum(), [used], torch.ones(2)).tolist() == [0, 0]
    assert hvp((used**2).sum(), [used, unused], torch.ones(4)).tolist() == [2, 2, 0, 0]


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("graph_budget", [0, 2000, None])
@pytest.mark.parametrize("cut", ["whole", "ragged loader", "list", "micro", "data set"])
def test_neither_batches_nor_budget_change_the_matrix(cut, graph_budget):
    forms = {
        "whole": data(),
        "ragged loader": ragged(),
        "list": list(ragged(7)),
        "micro": data(),
        "data set": TensorDataset(*data()),
    }
    model = tanh_net()
    options = {"micro_batch_size": 4} if cut == "micro" else {}
    H = HessianOperator(model, F.cross_entropy, forms[cut], graph_budget=graph_budget, **options)
    expected = dense_hessian(model, F.cross_entropy, data()) @ probe(43)
    for _ in range(2):
        exactly(H @ probe(43), expected)


def test_budget_decides_how_many_graphs_are_kept():
    operators = [HessianOperator(tanh_net(), F.cross_entropy, ragged(), graph_budget=b) for b in (0, 2000, None)]
    assert [H.num_batches_kept for H in operators] == [0, 0, 0]
    kept = [(H @ probe(43), H.num_batches_kept)[1] for H in operators]
    assert kept[0] == 0
    assert 0 < kept[1] < 4
    assert kept[2] == 4


def test_sum_reduction_is_n_times_the_mean():
    model = tanh_net()
    mean, total = (
        HessianOperator(model, nn.CrossEntropyLoss(reduction=reduction), ragged()) for reduction in ("mean", "sum")
    )
    exactly(total @ probe(43), N * (mean @ probe(43)))
    by_hand = HessianOperator(model, lambda o, t: F.cross_entropy(o, t, reduction="sum"), ragged(), reduction="sum")
    exactly(by_hand @ probe(43), total @ probe(43))


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(weight=torch.tensor([5.0, 1.0, 0.2]).double()), nn.CrossEntropyLoss(ignore_index=1)]
)
def test_class_weights_and_ignored_labels_count_as_over_all_data_at_once(loss):
    x, y = data()
    y = y.sort().values  # so that batches differ in their weight
    y[-1] = 0 if loss.ignore_index == 1 else y[-1]
    order = torch.tensor([0, 6, 1, 7, 2, 12, 3, 13, 8, 4, 14, 9, 5, 15, 10, 16, 11])
    pair, model = (x[order], y[order]), tanh_net()
    whole, cut = (HessianOperator(model, loss, pair, micro_batch_size=size) for size in (None, 5))
    exactly(cut @ probe(43), whole @ probe(43))
    exactly(whole @ probe(43), dense_hessian(model, loss, pair) @ probe(43))
    assert cut.loss == pytest.approx(whole.loss, rel=1e-12)


def dictionary_loss(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["nested"][0])


@pytest.mark.parametrize("as_list", [False, True])
def test_dictionary_batches_go_through_a_loss_of_model_and_batch(as_list):
    x, y = data()
    batch = {"name": "any", "temperature": torch.tensor(1.0), "x": x, "nested": [y]}
    cut = [{"x": x[:5], "nested": [y[:5]]}, {"x": x[5:], "nested": [y[5:]]}]
    model = tanh_net()
    H = HessianOperator(model, dictionary_loss, cut if as_list else batch)
    assert (H.num_samples, H.loss_style) == (N, "model_batch")
    exactly(H @ probe(43), dense_hessian(model, F.cross_entropy, data()) @ probe(43))


def test_pairs_may_go_through_a_loss_of_model_and_batch():
    model = tanh_net()
    H = HessianOperator(model, lambda m, b: F.cross_entropy(m(b[0]), b[1]), data(), loss_style="model_batch")
    exactly(H @ probe(43), dense_hessian(model, F.cross_entropy, data()) @ probe(43))


def test_blocks_do_not_take_two_batches_of_one_tensor_each_for_a_pair():
    model = nn.Linear(D, 2).double()
    H = HessianOperator(model, lambda m, b: m(b).pow(2).mean(), DataLoader(data(6)[0], batch_size=3))
    exactly(H.blocks()["weight"].to_dense(), H.to_dense()[:8, :8])


@pytest.mark.parametrize("graph_budget", [0, None])
def test_shuffling_loader_and_later_changes_of_the_data_do_not_matter(graph_budget):
    x, y = data()
    loader = DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True)
    model = tanh_net()
    expected = dense_hessian(model, F.cross_entropy, (x, y)) @ probe(43)
    for source in (loader, (x, y)):
        H = HessianOperator(model, F.cross_entropy, source, graph_budget=graph_budget)
        first = H @ probe(43)
        exactly(first, expected)
        before = x.clone()
        x.mul_(2)
        assert torch.equal(H @ probe(43), first)
        x.copy_(before)


def test_loader_that_fills_the_same_memory_again_is_copied():
    x, y = data(12)
    buffer, model = torch.empty(6, D, dtype=torch.float64), tanh_net()

    def batches():
        for start in (0, 6):
            yield buffer.copy_(x[start : start + 6]), y[start : start + 6]

    H = HessianOperator(model, F.cross_entropy, batches())
    exactly(H @ probe(43), dense_hessian(model, F.cross_entropy, (x, y)) @ probe(43))


# ---------------------------------------------------------------- parameters and blocks


def test_blocks_are_the_sub_matrices():
    model = tanh_net()
    H = HessianOperator(model, F.cross_entropy, ragged())
    dense, start = dense_hessian(model, F.cross_entropy, data()), 0
    blocks = H.blocks()
    assert all(block.batches[0].content[0] is H.batches[0].content[0] for block in blocks.values())  # no copies
    assert tuple(blocks) == H.parameter_names == ("0.weight", "0.bias", "2.weight", "2.bias")
    for block in blocks.values():
        stop = start + block.dim
        exactly(block.to_dense(), dense[start:stop, start:stop])
        start = stop


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ("2.weight", ["2.weight"]),
        ("0", ["0.weight", "0.bias"]),
        ("*.weight", ["0.weight", "2.weight"]),
        (["2.bias", "0.bias"], ["0.bias", "2.bias"]),
        (lambda model: model[2], ["2.weight", "2.bias"]),
        (lambda model: model[0].weight, ["0.weight"]),
        (lambda model: model.parameters(), ["0.weight", "0.bias", "2.weight", "2.bias"]),
        (lambda model: ["0", model[2].bias], ["0.weight", "0.bias", "2.bias"]),
    ],
    ids=["name", "module name", "glob", "names", "module", "parameter", "generator", "mixture"],
)
def test_parameters_are_chosen_by_name_glob_module_or_tensor(params, names):
    model = tanh_net()
    H = HessianOperator(model, F.cross_entropy, data(), params(model) if callable(params) else params)
    indices, start = [], 0
    for name, parameter in model.named_parameters():
        indices += list(range(start, start + parameter.numel())) if name in names else []
        start += parameter.numel()
    assert list(H.parameter_names) == names
    dense = dense_hessian(model, F.cross_entropy, data())
    exactly(H.to_dense(), dense[indices][:, indices])


def test_frozen_parameters_are_skipped():
    model = tanh_net()
    dense = dense_hessian(model, F.cross_entropy, data())
    model[0].requires_grad_(False)
    H = HessianOperator(model, F.cross_entropy, data())
    assert (H.dim, H.num_frozen) == (18, 25)
    exactly(H.to_dense(), dense[25:, 25:])


def test_scalar_parameters_are_entries_like_others():
    class Scaled(nn.Linear):
        def __init__(self):
            super().__init__(D, CLASSES)
            self.temperature = nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            return self.temperature * super().forward(x)

    model = Scaled().double()
    exactly(HessianOperator(model, F.cross_entropy, data()).to_dense(), dense_hessian(model, F.cross_entropy, data()))


def test_tied_weights_count_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(D, D, bias=False)
            self.b = nn.Linear(D, D, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    torch.manual_seed(0)
    model = Tied().double()
    H = HessianOperator(model, F.cross_entropy, data())
    assert H.dim == D * D
    exactly(H.to_dense(), dense_hessian(model, F.cross_entropy, data()))


@pytest.mark.parametrize("graph_budget", [0, None])
def test_unused_parameters_have_zero_rows(graph_budget):
    model = tanh_net()
    model.spare = nn.Linear(2, 2).double()
    model.forward = lambda x: model[2](model[1](model[0](x)))
    H = HessianOperator(model, F.cross_entropy, data(), graph_budget=graph_budget)
    dense = H.to_dense()
    assert dense[43:].abs().max() == dense[:, 43:].abs().max() == 0
    exactly(dense[:43, :43], dense_hessian(tanh_net(), F.cross_entropy, data()))


class Head(nn.Sequential):
    def forward(self, x):
        return self[0](x)


@pytest.mark.parametrize("graph_budget", [0, None])
@pytest.mark.parametrize(
    ("make", "loss", "params"),
    [
        (lambda: nn.Linear(D, 1).double(), nn.L1Loss(), None),
        (lambda: nn.Sequential(nn.Linear(D, 3), nn.ReLU(), nn.Linear(3, 1)).double(), nn.L1Loss(), "0"),
        (lambda: Head(nn.Linear(D, 1), nn.Linear(1, 1)).double(), nn.MSELoss(), "1"),
        (lambda: nn.Linear(D, 1).double(), lambda o, t: F.mse_loss(o.detach(), t), None),
    ],
    ids=["linear, absolute error", "a layer of a ReLU net, absolute error", "unused", "detached"],
)
def test_identically_zero_hessian_is_warned_of(make, loss, params, graph_budget):
    x = data()[0]
    H = HessianOperator(make(), loss, (x, torch.zeros(N, 1).double()), params, graph_budget=graph_budget)
    with pytest.warns(UserWarning, match="seems to be identically zero") as record:
        product = H @ probe(H.dim)
    assert product.tolist() == [0.0] * H.dim
    assert record[0].filename == __file__
    assert H.gradient().shape == product.shape


def test_relu_net_under_absolute_error_is_curved_between_layers_without_warning():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    H = HessianOperator(model, nn.L1Loss(), (data()[0], torch.zeros(N, 1).double()))
    exactly(H @ probe(19), differences(H, probe(19), 1e-6), 1e-7)
    assert (H @ probe(19)).abs().max() > 0.01


# ---------------------------------------------------------------- the model may change


def through_no_grad(model):
    with torch.no_grad():
        model[2].weight.mul_(1.7)


def through_data(model):
    model[2].weight.data.mul_(1.7)


def through_optimizer(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    F.cross_entropy(model(data()[0]), data()[1]).backward()
    optimizer.step()


def through_vector(model):
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()).detach() * 1.3, model.parameters())


def through_state(model):
    model.load_state_dict(tanh_net(seed=9).state_dict())


def there_and_back(model):
    with torch.no_grad():
        model[2].weight.add_(1).sub_(1)


@pytest.mark.parametrize("graph_budget", [0, None])
@pytest.mark.parametrize("params", [None, "0"])
@pytest.mark.parametrize(
    "change", [through_no_grad, through_data, through_optimizer, through_vector, through_state, there_and_back]
)
def test_products_follow_the_current_weights_of_the_whole_model(change, params, graph_budget):
    model = tanh_net()
    H = HessianOperator(model, F.cross_entropy, ragged(), params, graph_budget=graph_budget)
    before = H @ probe(H.dim)
    change(model)
    after = H @ probe(H.dim)
    exactly(after, HessianOperator(model, F.cross_entropy, data(), params) @ probe(H.dim))
    if change is not there_and_back:
        assert (after - before).abs().max() > 1e-3


def test_weights_replaced_in_the_same_memory_through_a_flat_vector_are_noticed():
    model = tanh_net()
    flat = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    nn.utils.vector_to_parameters(flat, model.parameters())
    H = HessianOperator(model, F.cross_entropy, data())
    before = H @ probe(43)
    flat.mul_(1.5)  # the parameters are views of it
    exactly(H @ probe(43), dense_hessian(model, F.cross_entropy, data()) @ probe(43))
    assert not torch.allclose(H @ probe(43), before)


def test_new_batch_norm_statistics_are_noticed():
    model = nn.Sequential(nn.Linear(D, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, CLASSES)).double()
    H = HessianOperator(model, F.cross_entropy, data())
    _ = H @ probe(H.dim)
    model.train()(3 * data()[0] + 1)
    exactly(H @ probe(H.dim), dense_hessian(model.eval(), F.cross_entropy, data()) @ probe(H.dim))


# ---------------------------------------------------------------- architectures


class Attention(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.head = kind, nn.Linear(4, CLASSES)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True) if kind == "module" else nn.Linear(4, 12)

    def forward(self, x):
        x = x.reshape(-1, 2, 2).repeat(1, 1, 2)
        if self.kind == "module":
            mixed = self.attention(x, x, x, need_weights=False)[0]
        else:
            q, k, v = self.attention(x).chunk(3, -1)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(mixed.mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(1, 3, batch_first=True), nn.Linear(3, CLASSES)

    def forward(self, x):
        return self.head(self.rnn(x.unsqueeze(-1))[0][:, -1])


ARCHITECTURES = {
    "attention module": lambda: Attention("module"),
    "scaled dot product": lambda: Attention("function"),
    "encoder layer": lambda: nn.Sequential(
        nn.TransformerEncoderLayer(D, 2, 6, activation="gelu", batch_first=True), nn.Linear(D, CLASSES)
    ),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, D)),
        nn.Conv1d(1, 3, 3, padding=1),
        nn.GELU(),
        nn.AvgPool1d(2),
        nn.Flatten(),
        nn.Linear(6, 3),
    ),
    "layer norm": lambda: nn.Sequential(nn.Linear(D, 5), nn.LayerNorm(5), nn.Softplus(), nn.Linear(5, CLASSES)),
    "batch norm": lambda: nn.Sequential(nn.Linear(D, 5), nn.BatchNorm1d(5), nn.SiLU(), nn.Linear(5, CLASSES)),
}


@pytest.mark.parametrize("graph_budget", [0, None])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_architectures_agree_with_differences_of_the_gradient(kind, graph_budget):
    torch.manual_seed(3)
    model = ARCHITECTURES[kind]().double()
    H = HessianOperator(model, F.cross_entropy, ragged(9), graph_budget=graph_budget)
    v = probe(H.dim)
    product = H @ v
    exactly(product, differences(H, v), 1e-7)
    assert product.abs().max() > 1e-3
    exactly(H @ v, product)


@pytest.mark.parametrize("graph_budget", [0, None])
@pytest.mark.parametrize("layer", [lambda: nn.BatchNorm1d(5), lambda: nn.Dropout(0.5)], ids=["batch norm", "dropout"])
def test_training_mode_is_a_fixed_matrix_too(layer, graph_budget):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(D, 5), layer(), nn.Tanh(), nn.Linear(5, CLASSES)).double().eval()
    with pytest.warns(UserWarning, match='mode="train" with dropout or batch norm') as record:
        H = HessianOperator(model, F.cross_entropy, ragged(9), mode="train", graph_budget=graph_budget)
    assert record[0].filename == __file__
    v = probe(H.dim)
    product = H @ v
    exactly(H @ v, product)
    exactly(product, differences(H, v), 1e-7)
    evaluated = HessianOperator(model, F.cross_entropy, ragged(9)) @ v
    assert (product - evaluated).abs().max() > 1e-3
    if graph_budget is None:
        kept = H._graphs
        _ = H @ v
        assert H._graphs is kept  # a product's own forward passes are not a reason to rebuild the graphs


def test_seed_chooses_the_dropout_masks():
    model = nn.Sequential(nn.Linear(D, 5), nn.Dropout(0.5), nn.Linear(5, CLASSES)).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, other = (HessianOperator(model, F.cross_entropy, data(), mode="train", seed=seed) for seed in (0, 1))
    assert not torch.allclose(first @ probe(43), other @ probe(43))


imports_dynamo = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


@imports_dynamo
@pytest.mark.parametrize(
    "wrap",
    [torch.compile, nn.DataParallel, lambda model: nn.DataParallel(torch.compile(model))],
    ids=["compiled", "data parallel", "both"],
)
def test_wrappers_are_removed(wrap):
    model = tanh_net()
    H = HessianOperator(wrap(model), F.cross_entropy, data())
    assert H.model is model
    assert H.parameter_names[0] == "0.weight"
    exactly(H @ probe(43), dense_hessian(model, F.cross_entropy, data()) @ probe(43))


@imports_dynamo
def test_compiled_parts_run_as_plain_torch():
    whole, part = tanh_net(), tanh_net()
    whole.compile()
    part[0] = torch.compile(part[0])
    expected = dense_hessian(tanh_net(), F.cross_entropy, data()) @ probe(43)
    for model in (whole, part):
        exactly(HessianOperator(model, F.cross_entropy, data()) @ probe(43), expected)


def test_torch_still_differentiates_weight_norm_wrongly():
    """Once gradgradcheck passes, weight norm need not be refused any more."""
    v, g = (torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, D), (3, 1)))
    assert not torch.autograd.gradgradcheck(lambda a, b: torch._weight_norm(a, b, 0), (v, g), raise_exception=False)


def test_no_grad_around_a_product_has_no_effect():
    model = tanh_net()
    expected = HessianOperator(model, F.cross_entropy, data()) @ probe(43)
    with torch.no_grad():
        exactly(HessianOperator(model, F.cross_entropy, data()) @ probe(43), expected)


def test_a_seed_set_before_cuda_starts_is_kept():
    if torch.cuda.is_initialized():
        pytest.skip("CUDA has started in this process")
    H = HessianOperator(tanh_net(), F.cross_entropy, data(), graph_budget=0)
    torch.cuda.manual_seed_all(1234)
    waiting = torch.cuda._lazy_seed_tracker.get_calls()
    assert waiting
    _ = H @ probe(43), H.gradient()
    assert torch.cuda._lazy_seed_tracker.get_calls() == waiting


# ---------------------------------------------------------------- SciPy, precision, messages


def test_scipy_finds_the_top_eigenvalues():
    model = tanh_net()
    form = HessianOperator(model, F.cross_entropy, data()).to_scipy()
    found = np.sort(scipy.sparse.linalg.eigsh(form, k=3, which="LA", return_eigenvectors=False))
    expected = torch.linalg.eigvalsh(dense_hessian(model, F.cross_entropy, data()))[-3:]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_single_precision_is_right_to_single_precision():
    model, (x, y) = tanh_net(), data()
    expected = dense_hessian(model, F.cross_entropy, (x, y)) @ probe(43)
    H = HessianOperator(model.float(), F.cross_entropy, (x.float(), y))
    product = H @ probe(43)
    assert product.dtype == H.dtype == torch.float32
    exactly(product.double(), expected, 1e-6)


def test_repr_shows_size_and_loss():
    text = repr(HessianOperator(tanh_net(), F.cross_entropy, data()))
    assert text.startswith("HessianOperator(dim=43, num_samples=17, loss=1.")


def test_parameters_without_entries_are_not_blocks():
    model = nn.Linear(2, 2)
    model.empty = nn.Parameter(torch.empty(0))
    operator = HessianOperator(model, nn.functional.cross_entropy, (torch.ones(1, 2), torch.tensor([1])))
    assert list(operator.blocks()) == ["weight", "bias"]


X, Y = data()
ONES = torch.ones(2, requires_grad=True)
CUBES = ONES**3


class TwoOutputs(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


class SumsOfRows(nn.Linear):
    def forward(self, x):
        return F.embedding_bag((x > 0).long(), self.weight, mode="sum")


def frozen():
    model = tanh_net()
    model[0].weight.requires_grad_(False)
    return model


def sparse_embedding():
    return nn.Sequential(nn.Embedding(4, 3, sparse=True), nn.Flatten(), nn.Linear(6, 2))


def fully_sharded():
    return type("FSDPLinear", (type("FSDPModule", (), {}), nn.Linear), {})(2, 2)


def once_differentiable():
    return nn.Sequential(nn.Linear(D, CLASSES), OnceDifferentiable()).double()


def weight_norm():
    return nn.utils.parametrizations.weight_norm(nn.Linear(D, CLASSES)).double()


def in_inference_mode():
    with torch.inference_mode():
        HessianOperator(tanh_net(), F.cross_entropy, data())


def product(model=tanh_net, **changed):
    """A product with the operator of a good model and good data but for what is changed; leaves the model unchanged."""
    network, options = model(), {"loss_fn": F.cross_entropy, "data": (X, Y)} | changed
    with unchanged(network) if isinstance(network, nn.Module) else contextlib.nullcontext():
        operator = HessianOperator(network, **options)
        return operator @ torch.ones(operator.dim, dtype=operator.dtype)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: product(data=[]), ValueError, r"data is empty; pass \(inputs, targets\)"),
        (lambda: product(data=(X[:0], Y[:0])), ValueError, "data is empty"),
        (lambda: product(data=(X, Y[:3])), ValueError, "equally many samples, got 17 and 3"),
        (lambda: product(data=5), TypeError, r"data must be \(inputs, targets\).*got int"),
        (
            lambda: product(data=(X.numpy(), Y.numpy())),
            TypeError,
            "each batch must hold at least one tensor, got ndarray.*from_numpy",
        ),
        (
            lambda: product(data=(X, torch.full((N,), 3))),
            ValueError,
            r"targets hold the label 3, but the model has 3 outputs",
        ),
        (lambda: product(data=(X, -Y)), ValueError, "targets hold the label -"),
        (
            lambda: product(data=(X, torch.full((N,), 3)), loss_fn=lambda o, t: F.cross_entropy(o, t)),
            ValueError,
            "out of bounds",
        ),
        (
            lambda: product(data=(X.float(), Y)),
            ValueError,
            r"\(17, 4\) torch.float32.*parameters are torch.float64 on cpu",
        ),
        (lambda: product(data=(X[:, :2], Y)), ValueError, r"\(17, 2\) torch.float64.*cannot be computed"),
        (lambda: product(data=(X * np.nan, Y)), ValueError, "the loss is not finite.*Likely causes"),
        (lambda: product(loss_fn=lambda o, t: o.sum() / 0), ValueError, "the loss is not finite"),
        (
            lambda: product(loss_fn=lambda o, t: F.cross_entropy(o, t, reduction="none")),
            ValueError,
            r"one number per batch.*\(17,\)",
        ),
        (lambda: product(loss_fn=lambda o, t: 1.0), ValueError, "loss_fn must return one number per batch.*float"),
        (
            lambda: product(loss_fn=nn.CrossEntropyLoss(reduction="none")),
            ValueError,
            "reduction must be one of 'mean', 'sum', got 'none'",
        ),
        (lambda: product(loss_fn="mse"), TypeError, "loss_fn must be callable, got str"),
        (lambda: product(loss_fn=nn.MSELoss), TypeError, r"got the class MSELoss; pass MSELoss\(\)"),
        (lambda: product(model=lambda: "net"), TypeError, "model must be a torch.nn.Module, got str"),
        (lambda: product(model=nn.ReLU), ValueError, r"model \(ReLU\) has no parameters"),
        (
            lambda: product(model=lambda: tanh_net().requires_grad_(False)),
            ValueError,
            "selects no trainable.*requires_grad_",
        ),
        (
            lambda: product(model=lambda: tanh_net().half()),
            ValueError,
            "float16 overflow or vanish; use a copy in single precision",
        ),
        (lambda: product(model=lambda: tanh_net().bfloat16()), ValueError, "torch.bfloat16"),
        (lambda: product(model=lambda: nn.Sequential(tanh_net(), nn.Linear(3, 3))), ValueError, "must share one dtype"),
        (
            lambda: product(params="0.wieght"),
            ValueError,
            "params='0.wieght' is not the name of a parameter.*did you mean '0.weight'",
        ),
        (
            lambda: product(params="layer9"),
            ValueError,
            "is not the name of a parameter or module of the model; there are 0.weight",
        ),
        (
            lambda: product(model=frozen, params="0.weight"),
            ValueError,
            "parameter '0.weight' is frozen; call requires_grad_",
        ),
        (lambda: product(params=nn.Linear(2, 2)), ValueError, "no parameter of the model"),
        (lambda: product(params=torch.zeros(2)), ValueError, "params holds a frozen parameter"),
        (lambda: product(params=[]), ValueError, "params is empty"),
        (lambda: product(params=5), TypeError, "params must hold names, modules or parameters, got int"),
        (lambda: product(params=[5]), TypeError, "params must hold names, modules or parameters, got int"),
        (lambda: product(mode="test"), ValueError, "mode must be one of 'eval', 'train', got 'test'"),
        (lambda: product(loss_style="x"), ValueError, "loss_style must be one of"),
        (
            lambda: product(data={"x": X}, loss_style="output_target"),
            ValueError,
            r'needs batches \(x, y\); use "model_batch"',
        ),
        (lambda: product(graph_budget=-1), ValueError, "graph_budget must lie in"),
        (lambda: product(graph_budget="1GB"), TypeError, "graph_budget must be a real number"),
        (lambda: product(micro_batch_size=0), ValueError, "micro_batch_size must be at least 1"),
        (lambda: product(seed=-1), ValueError, "seed must be at least 0"),
        (
            lambda: product(
                data={"x": X, "table": torch.zeros(3)}, loss_fn=lambda m, b: m(b["x"]).sum(), micro_batch_size=4
            ),
            ValueError,
            "micro_batch_size=4 cannot cut a batch whose tensors differ",
        ),
        (
            lambda: product(model=sparse_embedding, data=(torch.tensor([[0, 1]]), torch.tensor([1]))),
            ValueError,
            "sparse=False",
        ),
        (lambda: product(model=lambda: TwoOutputs(D, CLASSES).double()), TypeError, "one tensor"),
        (lambda: product(model=fully_sharded), TypeError, "fully sharded"),
        (
            lambda: product(model=once_differentiable, graph_budget=0),
            RuntimeError,
            r"cannot be differentiated twice .*once_differentiable.*params=",
        ),
        (
            lambda: product(model=once_differentiable),
            RuntimeError,
            r"cannot be differentiated twice .*once_differentiable.*params=",
        ),
        (
            lambda: product(model=lambda: SumsOfRows(D, D).double(), graph_budget=0),
            RuntimeError,
            r"most likely .* cannot be differentiated twice \(.*_embedding_bag_backward.*params=",
        ),
        (
            lambda: product(model=lambda: SumsOfRows(D, D).double()),
            RuntimeError,
            r"most likely .* cannot be differentiated twice \(.*_embedding_bag_backward.*params=",
        ),
        (
            lambda: product(model=weight_norm),
            RuntimeError,
            r"weight_norm's second derivative; .*remove_parametrizations",
        ),
        (lambda: in_inference_mode(), RuntimeError, "inference_mode"),
        (lambda: hvp(CUBES.sum(), [], torch.ones(2)), ValueError, "hvp needs parameters and one loss"),
        (lambda: hvp(CUBES.sum().detach(), [ONES], torch.ones(2)), ValueError, "hvp needs parameters and one loss"),
        (lambda: hvp(CUBES, [ONES], torch.ones(2)), ValueError, "hvp needs parameters and one loss"),
        (lambda: hvp(CUBES.sum(), [ONES], torch.ones(3)), ValueError, r"vector must have shape \(2,\), got \(3,\)"),
    ],
)
def test_messages(call, error, match):
    with pytest.raises(error, match=match):
        call()
