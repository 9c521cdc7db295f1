"""Standard errors that cover the sample: the jackknife by hand, coverage, and data that it cannot be had of."""

import warnings

import numpy as np
import pytest
import torch
from restless import unchanged
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import renyi_lab as rl
from renyi_lab.operators import without_groups

ALPHAS = (0.5, 1.0, 2.0)
pytestmark = pytest.mark.filterwarnings("ignore:the entropy of order")


def samples(n=60, seed=0, features=6):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, dtype=torch.float64, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def linear(features=6):
    torch.manual_seed(0)
    return nn.Linear(features, 3).double()


def estimated(data, loss_fn=F.cross_entropy, model=None, **options):
    operator = rl.HessianOperator(model or linear(), loss_fn, data, **options)
    return operator, rl.estimate_spectrum(operator, num_matvecs=operator.dim, data_error=True)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_it_is_the_jackknife_over_ten_random_groups(reduction):
    data = samples()
    operator, spectrum = estimated(data, nn.CrossEntropyLoss(reduction=reduction))
    parts = [part for part in without_groups(operator.batches, 10, 0x5EED)]
    assert [sum(batch.size for batch in part) for part in parts] == [54] * 10
    values = []
    for part in parts:
        pairs = [batch.content for batch in part]
        x, y = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
        values.append(float(rl.exact_spectrum(rl.HessianOperator(operator.model, F.cross_entropy, (x, y))).trace))
    scale = 60.0 if reduction == "sum" else 1.0
    values = scale * np.array(values)
    variance = 0.9 * ((values - values.mean()) ** 2).sum()
    bias = 9 * (values.mean() - spectrum.trace.value)
    expected = 2.262 / 1.96 * np.sqrt(variance + bias**2)
    assert spectrum.trace.data_error == pytest.approx(expected, rel=1e-9)
    assert spectrum.trace.value == pytest.approx(float(rl.exact_spectrum(operator).trace), rel=1e-12)
    assert spectrum.num_matvecs == 11 * operator.dim


def test_every_sample_is_left_out_once_and_sorted_data_are_mixed():
    x = torch.arange(60.0)[:, None]
    loader = DataLoader(TensorDataset(x, torch.zeros(60)), batch_size=25)
    operator = rl.HessianOperator(nn.Linear(1, 1), lambda out, y: (out.squeeze() - y).square().mean(), loader)
    left_out = []
    for part in without_groups(operator.batches, 10, 0):
        kept = torch.cat([batch.content[0].flatten() for batch in part])
        left_out.append(sorted(set(range(60)) - {int(value) for value in kept}))
    assert sorted(index for group in left_out for index in group) == list(range(60))
    assert all(max(group) - min(group) > 6 for group in left_out)


def test_parts_of_the_standard_error_add_up_and_values_do_not_change():
    operator = rl.HessianOperator(rl.models.mlp(6, 12, 3).double(), F.cross_entropy, samples(200))
    plain = rl.estimate_spectrum(operator, num_matvecs=60)
    found = rl.estimate_spectrum(operator, num_matvecs=60, data_error=True)
    for alpha in ALPHAS:
        before, after = plain.renyi_entropy(alpha), found.renyi_entropy(alpha)
        assert after.value == before.value
        assert before.data_error == 0 < after.data_error
        assert after.sampling_error == pytest.approx(before.sampling_error, abs=1e-12)
        assert after.standard_error**2 == pytest.approx(before.standard_error**2 + after.data_error**2)
        number = found.effective_number(alpha)
        assert number.data_error == pytest.approx(number.value * after.data_error)
        assert found.renyi_sharpness(alpha).data_error == after.data_error
    report = found.report()
    assert list(report["data_error"]) == [found.renyi_entropy(alpha).data_error for alpha in report.index]
    assert "data_error" not in plain.report()


def test_the_probes_are_the_same_so_that_their_noise_cancels():
    """Samples that are all alike leave no data error, although each estimate depends on its probes."""
    x, y = samples(1)
    data = x.expand(40, -1).clone(), y.expand(40).clone()
    operator = rl.HessianOperator(rl.models.mlp(6, 30, 3, activation="tanh").double(), F.cross_entropy, data)
    spectrum = rl.estimate_spectrum(operator, num_matvecs=30, data_error=True)
    for alpha in ALPHAS:
        entropy = spectrum.renyi_entropy(alpha)
        assert entropy.data_error < 0.05 * entropy.standard_error


@pytest.mark.parametrize("size", [40, 160])
def test_values_of_all_data_are_within_two_standard_errors_of_subsets(size):
    """Exact spectra of a small softmax regression. Half the error, or none, covers too few."""
    x, y = samples(4000, seed=5)
    model = linear()
    truth = rl.exact_spectrum(rl.HessianOperator(model, F.cross_entropy, (x, y)))
    covered, by_half = [], []
    for seed in range(60):
        chosen = torch.randperm(4000, generator=torch.Generator().manual_seed(seed))[:size]
        operator = rl.HessianOperator(model, F.cross_entropy, (x[chosen], y[chosen]))
        spectrum = rl.estimate_spectrum(operator, num_matvecs=operator.dim, data_error=True, seed=seed)
        for alpha in ALPHAS:
            entropy = spectrum.renyi_entropy(alpha)
            error = abs(entropy.value - truth.renyi_entropy(alpha).value)
            covered.append(error <= 2 * entropy.standard_error)
            by_half.append(error <= entropy.standard_error)
    assert np.mean(covered) >= 0.9 > np.mean(by_half)


def test_a_large_data_error_is_named_with_its_cure():
    operator = rl.HessianOperator(rl.models.mlp(6, 12, 3).double(), F.cross_entropy, samples(12))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spectrum = rl.estimate_spectrum(operator, num_matvecs=operator.dim, data_error=True)
    with pytest.warns(UserWarning, match="use more samples"):
        spectrum.renyi_entropy(2.0)
    assert "use more samples" in spectrum.report([2.0])["remark"].item()


def test_dictionary_batches_and_whole_batches_where_samples_cannot_be_taken_apart():
    x, y = samples(50)
    model = linear()
    loss_fn = lambda m, batch: F.cross_entropy(m(batch["x"]), batch["y"])  # noqa: E731
    batches = [{"x": x[i : i + 10], "y": y[i : i + 10]} for i in range(0, 50, 10)]
    _, spectrum = estimated(batches, loss_fn, model)
    _, same = estimated((x, y), F.cross_entropy, model)
    assert spectrum.trace.data_error == pytest.approx(same.trace.data_error)
    whole = [batch | {"edges": torch.zeros(3)} for batch in batches]
    _, by_batch = estimated(whole, loss_fn, model, batch_mass=lambda batch: len(batch["y"]))
    assert len(by_batch.leaving_out) == 5
    assert by_batch.trace.data_error > 0


def test_what_it_cannot_be_had_of():
    model, data = linear(), samples()
    operator = rl.HessianOperator(model, F.cross_entropy, data)
    with pytest.raises(TypeError, match=r"data_error=True needs an operator of a model.*MatrixOperator"):
        rl.estimate_spectrum(torch.eye(5), data_error=True)
    with pytest.raises(ValueError, match=r"data_error=True needs num_matvecs"):
        rl.estimate_spectrum(operator, target_error=0.1, alpha=1.0, data_error=True)
    few = rl.HessianOperator(model, F.cross_entropy, samples(3))
    with pytest.raises(ValueError, match=r"data_error=True needs at least 4 samples, got 3"):
        rl.estimate_spectrum(few, data_error=True)
    with pytest.raises(TypeError, match="data_error must be"):
        rl.estimate_spectrum(operator, data_error=0.1)


def test_it_is_stored_with_the_spectrum(tmp_path):
    operator = rl.HessianOperator(rl.models.mlp(6, 12, 3).double(), F.cross_entropy, samples(40))
    spectrum = rl.estimate_spectrum(operator, num_matvecs=30, data_error=True)
    spectrum.save(tmp_path / "spectrum.npz")
    loaded = rl.Spectrum.load(tmp_path / "spectrum.npz")
    assert loaded.renyi_entropy(1.5) == spectrum.renyi_entropy(1.5)
    assert loaded.report().equals(spectrum.report())


def test_nothing_is_left_behind():
    model = linear()
    operator = rl.HessianOperator(model, F.cross_entropy, samples())
    with unchanged(model):
        rl.estimate_spectrum(operator, num_matvecs=10, data_error=True)


@pytest.mark.filterwarnings("ignore:the matrix seems to be identically zero")
@pytest.mark.parametrize("num_matvecs", [12, 60], ids=["estimated", "exact"])
def test_it_is_infinite_where_all_curvature_is_in_one_group(num_matvecs):
    """Without that group the entropy is not defined, so nothing is known of its error."""
    x = torch.zeros(40, 30, dtype=torch.float64)
    x[3] = torch.arange(30)
    model = nn.Linear(30, 1, bias=False).double()
    operator = rl.HessianOperator(model, F.mse_loss, (x, torch.zeros(40, 1, dtype=torch.float64)))
    spectrum = rl.estimate_spectrum(operator, num_matvecs=num_matvecs, data_error=True)
    with pytest.warns(UserWarning, match="use more samples"):
        entropy = spectrum.renyi_entropy(2.0)
    assert np.isinf(entropy.data_error)
    assert np.isinf(entropy.standard_error)
    assert np.isfinite(spectrum.trace.standard_error)


@pytest.mark.parametrize("batch_mass", [None, lambda batch: int((batch[1] >= 0).sum())])
def test_labels_of_one_group_alone_are_named(batch_mass):
    x, _ = samples()
    y = torch.full((60,), -100)
    y[7] = 1
    operator = rl.HessianOperator(linear(), F.cross_entropy, (x, y), batch_mass=batch_mass)
    with pytest.raises(ValueError, match="data_error=True cannot leave a group of samples out"):
        rl.estimate_spectrum(operator, num_matvecs=10, data_error=True)
