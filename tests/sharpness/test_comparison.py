"""Two networks beside each other: figures of reports, and `compare`."""

from __future__ import annotations

import copy
import math
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import renyi_lab as rl
from renyi_lab import Estimate, models
from renyi_lab.sharpness import Comparison, SharpnessReport, compare, sharpness_report


def net(*widths: int, seed: int = 0) -> nn.Module:
    return models.mlp(4, *(widths or (7, 6)), 3, seed=seed).double()


def data(n: int = 60) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(n) % 3


def compared(a: nn.Module, b: nn.Module, **options: object) -> Comparison:
    return compare(a, b, F.cross_entropy, data(), progress=False, **options)


@pytest.fixture(scope="module")
def trained() -> Comparison:
    return compared(net(), net(seed=1), num_matvecs=20, labels=("first", "second"))


# ---------------------------------------------------------------- differences


def test_differences_of_quadratics_are_those_of_the_closed_form():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    a, b = (nn.Linear(2, 1, bias=False).double() for _ in range(2))
    with torch.no_grad():
        a.weight.copy_(torch.tensor([[1.0, 1.0]]))
        b.weight.copy_(torch.tensor([[3.0, 2.0]]))

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean() / 2

    # L = (w₁² + 4 w₂²) / 4: eigenvalues 1/2 and 2 of both networks, gradient (w₁/2, 2 w₂).
    comparison = compare(a, b, loss_fn, (x, torch.zeros(2, 1, dtype=torch.float64)), progress=False)
    assert comparison.a["trace"].value == pytest.approx(2.5, rel=1e-12)
    for measure in ("trace", "lambda_max", "frobenius_norm", "renyi_sharpness_1"):
        assert comparison[measure].value == pytest.approx(0.0, abs=1e-12)
    assert comparison["parameter_norm"].value == pytest.approx(13**0.5 - 2**0.5, rel=1e-12)
    assert comparison["gradient_norm"].value == pytest.approx(18.25**0.5 - 4.25**0.5, rel=1e-12)


def test_a_second_equal_output_doubles_the_trace_and_lowers_renyi_sharpness_by_log_two():
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    thin, wide = nn.Linear(4, 1, bias=False).double(), nn.Linear(4, 2, bias=False).double()
    comparison = compare(thin, wide, lambda out, y: out.square().sum(1).mean(), (x, x), progress=False, blocks=False)
    # H is 2 XᵀX/n for each output: the second spectrum is the first one twice.
    assert comparison["trace"].value == pytest.approx(float(2 * x.square().sum() / 30), rel=1e-9)
    assert comparison["lambda_max"].value == pytest.approx(0.0, abs=1e-9)
    for alpha in ("0.5", "1", "1.5", "2"):
        assert comparison[f"renyi_sharpness_{alpha}"].value == pytest.approx(-math.log(2), rel=1e-9)


def test_reports_are_those_of_each_network_alone(trained):
    for model, report in ((net(), trained.a), (net(seed=1), trained.b)):
        alone = sharpness_report(model, F.cross_entropy, data(), num_matvecs=20, progress=False)
        np.testing.assert_allclose(report.to_frame()["value"], alone.to_frame()["value"], rtol=1e-6, equal_nan=True)


def test_the_frame_holds_values_differences_and_errors_of_differences(trained):
    frame = trained.to_frame()
    assert list(frame.columns) == ["measure", "block", "value_a", "value_b", "difference", "standard_error"]
    assert len(frame) == len(trained.a.estimates)
    np.testing.assert_array_equal(frame["difference"], frame["value_b"] - frame["value_a"])
    errors = [report.to_frame()["standard_error"] for report in (trained.a, trained.b)]
    np.testing.assert_allclose(frame["standard_error"], np.hypot(*errors), rtol=1e-12)
    row = frame[(frame["measure"] == "trace") & (frame["block"] == "whole")].iloc[0]
    assert trained["trace"].value == trained["trace", "whole"].value == row["difference"]
    assert trained["trace"].num_matvecs == 40


def test_parts_of_the_error_combine_as_the_error_does():
    first = Estimate(1.0, 5.0, 10, truncation_error=3.0, rounding_error=0.0)
    second = Estimate(3.0, 12.0, 20, truncation_error=4.0, rounding_error=1.0)
    reports = [SharpnessReport({("trace", "whole"): estimate}, {}, {}) for estimate in (first, second)]
    assert Comparison(*reports)["trace"] == Estimate(2.0, 13.0, 30, 5.0, 1.0)


def test_the_same_model_twice_differs_by_exactly_nothing():
    model = net()
    comparison = compared(model, model, num_matvecs=10)
    frame = comparison.to_frame().dropna()
    assert (frame["difference"] == 0).all()
    assert (frame["standard_error"] == 0).all()
    assert math.isnan(comparison["distance_from_initialization"].value)


def test_a_copy_of_a_model_differs_by_nothing_but_rounding():
    model = net()
    frame = compared(model, copy.deepcopy(model), num_matvecs=10).to_frame().dropna()
    np.testing.assert_allclose(frame["value_b"], frame["value_a"], rtol=1e-9, atol=1e-12)


def test_differences_of_estimates_are_covered_within_two_standard_errors():
    """Two networks of one architecture and 778 parameters, with dense spectra as the reference."""
    x = torch.randn(100, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(100) % 10
    base = models.mlp(40, 12, 12, 10, seed=0).double()
    other = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.3)
    operators = [rl.HessianOperator(model, F.cross_entropy, (x, y)) for model in (base, other)]
    truth = [rl.exact_spectrum(H) for H in operators]
    covered = []
    for seed in range(12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = [rl.estimate_spectrum(H, num_matvecs=40, seed=seed) for H in operators]
            for measure in (lambda s: s.trace, lambda s: s.renyi_sharpness(1.0), lambda s: s.renyi_sharpness(2.0)):
                a, b = (measure(spectrum) for spectrum in found)
                exact = measure(truth[1]).value - measure(truth[0]).value
                error = math.hypot(a.standard_error, b.standard_error)
                covered.append(abs(b.value - a.value - exact) <= 2 * error)
    assert np.mean(covered) >= 0.9


# ---------------------------------------------------------------- data, architectures, state


def test_a_generator_and_a_loader_that_shuffles_are_read_once():
    x, y = data()
    reads = 0

    def batches():
        nonlocal reads
        for start in range(0, 60, 20):
            reads += 1
            yield x[start : start + 20], y[start : start + 20]

    model = net()
    same = copy.deepcopy(model)
    options: dict[str, object] = {"num_matvecs": 10, "num_samples": 25, "blocks": False, "progress": False}
    comparison = compare(model, same, F.cross_entropy, batches(), **options)
    assert reads == 3
    assert comparison["trace"].value == pytest.approx(0.0, abs=1e-9)
    random_order = DataLoader(
        TensorDataset(x, y), batch_size=20, shuffle=True, generator=torch.Generator().manual_seed(5)
    )
    states = torch.get_rng_state(), random.getstate()
    comparison = compare(model, same, F.cross_entropy, random_order, **options)
    assert comparison["trace"].value == pytest.approx(0.0, abs=1e-9), "the same subset, from the same order"
    assert comparison["gradient_norm"].value == pytest.approx(0.0, abs=1e-9)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_dictionary_batches_are_compared():
    x, y = data()
    batches = [{"x": x[:40], "y": y[:40]}, {"x": x[40:], "y": y[40:]}]

    def loss_fn(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch["x"]), batch["y"])

    found = compare(net(), net(seed=1), loss_fn, batches, blocks=False, progress=False)
    plain = compared(net(), net(seed=1), blocks=False)
    assert found["trace"].value == pytest.approx(plain["trace"].value, rel=1e-6)


def test_other_architectures_are_compared_where_blocks_have_the_same_name():
    comparison = compared(net(7, 6), net(5), num_matvecs=10)
    assert {block for _, block in comparison.rows} == {
        "whole",
        "layer1.weight",
        "layer1.bias",
        "layer2.weight",
        "layer2.bias",
    }
    assert comparison.notes[0] == "left out, since only a has them: layer3.weight, layer3.bias"
    assert "whole 104 and 43" in comparison.notes[1]
    with pytest.raises(KeyError, match=r"no 'trace' of 'layer3\.weight'"):
        comparison["trace", "layer3.weight"]
    assert comparison.plot().alt.startswith("Measures of sharpness of the whole network and of 6 blocks")


def test_another_precision_is_a_note():
    x = torch.arange(30) % 5
    pair = [nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3)).to(dtype) for dtype in (torch.float32, torch.float64)]
    comparison = compare(*pair, F.cross_entropy, (x, x % 3), blocks=False, progress=False)
    assert "a: computed in float32 on cpu" in comparison.notes
    assert "b: computed in float64 on cpu" in comparison.notes


def test_both_models_are_unchanged_even_after_an_error():
    a, b = net(), net(seed=1)
    a.train()
    b.eval()
    F.cross_entropy(b(data()[0]), data()[1]).backward()
    before = [p.detach().clone() for m in (a, b) for p in m.parameters()]
    gradients = [p.grad.clone() for p in b.parameters()]
    compared(a, b, num_matvecs=5, blocks=False)
    b.layer1.weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match="model 'b': the loss is not finite"):
        compared(a, b, num_matvecs=5, blocks=False)
    b.layer1.weight.data[0, 0] = before[6][0, 0]
    after = [p for m in (a, b) for p in m.parameters()]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert all(torch.equal(p.grad, g) for p, g in zip(b.parameters(), gradients, strict=True))
    assert all(p.grad is None for p in a.parameters())
    assert a.training
    assert not b.training


# ---------------------------------------------------------------- texts and figures


def test_it_prints_both_values_and_the_difference(trained):
    lines = repr(trained).splitlines()
    assert lines[0].split() == ["first", "second", "second", "−", "first"]
    assert lines[1] == "whole"
    row = next(line for line in lines if line.startswith("  parameter_norm"))
    assert row.split()[1:3] == [f"{report['parameter_norm'].value:.4g}" for report in (trained.a, trained.b)]
    assert row.split()[3] == f"{trained['parameter_norm'].value:+.4g}"
    assert "layer2.weight" in lines
    assert max(len(line) for line in lines if "±" in line and "layer" not in line and ":" not in line) <= 120
    page = trained._repr_html_()
    assert "<td>" in page
    assert "layer3.bias" in page
    assert pickle.loads(pickle.dumps(trained)).to_frame().equals(trained.to_frame())


def test_labels_and_notes_are_escaped_in_html_and_nothing_is_compared_without_shared_rows():
    report = SharpnessReport({("trace", "whole"): Estimate(1.0)}, {}, {})
    other = SharpnessReport({("trace", "whole"): Estimate(2.0)}, {}, {("trace", "whole"): "x < y"})
    page = Comparison(report, other, ("<b>", "c"))._repr_html_()
    assert "<b>" not in page
    assert "x &lt; y" in page
    apart = Comparison(report, SharpnessReport({("depth", "all"): Estimate(2.0)}, {}, {}))
    assert apart.rows == ()
    assert len(apart.to_frame()) == 0
    assert "left out, since only a has them: whole" in repr(apart)
    assert "left out" in apart._repr_html_()


def panels(figure):
    return {ax.get_title(): ax for ax in figure.axes}


def test_a_figure_shows_every_estimate_with_two_standard_errors(trained):
    axes = panels(trained.plot())
    bars = axes["lambda_max"].containers
    assert len(bars) == 2
    for container, report in zip(bars, (trained.a, trained.b), strict=True):
        values = [report["lambda_max", block].value for block in report.blocks]
        np.testing.assert_allclose(np.array(container.lines[0].get_xdata(), dtype=float), values)
        ends = np.array([segment[:, 0] for segment in container.lines[2][0].get_segments()])
        errors = [report["lambda_max", block].standard_error for block in report.blocks]
        np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 4 * np.array(errors), atol=1e-12)
    assert [text.get_text() for text in axes["trace"].get_yticklabels()] == list(trained.a.blocks)
    ratios = axes["whole network: ratio of the second to the first, and both values"]
    names = [text.get_text() for text in ratios.get_yticklabels()]
    dot = next(
        line
        for line in ratios.lines
        if line.get_marker() == "o" and line.get_ydata()[0] == names.index("parameter_norm")
    )
    expected = trained.b["parameter_norm"].value / trained.a["parameter_norm"].value
    assert dot.get_xdata()[0] == pytest.approx(expected, rel=1e-12)
    assert "distance_from_initialization" not in names


def test_a_figure_of_one_report_and_its_text(trained):
    figure = trained.a.plot()
    assert "dots with bars of two standard errors" in figure.alt
    ax = panels(figure)["whole network, each measure in its own unit"]
    assert any(text.get_text().startswith(f"{trained.a['gradient_norm'].value:.4g}") for text in ax.texts)
    figure.canvas.draw()


@pytest.mark.parametrize(
    "estimate",
    [
        Estimate(math.nan),
        Estimate(0.0),
        Estimate(-1.0, 0.1),
        Estimate(math.inf),
        Estimate(1.0, math.inf),
        Estimate(1.0, math.nan),
    ],
)
def test_figures_and_texts_survive_unusual_estimates(estimate):
    usual = Estimate(30.0, 0.1)
    rows = {("trace", "whole"): usual, ("trace", "layer"): estimate, ("sam", "whole"): estimate, ("x", "whole"): usual}
    report = SharpnessReport(rows, {}, {})
    swapped = SharpnessReport({**rows, ("sam", "whole"): usual, ("trace", "layer"): usual}, {}, {})
    alone = SharpnessReport({("trace", "whole"): estimate}, {}, {})
    for figure in (report.plot(), report.plot(swapped), swapped.plot(report), alone.plot(), alone.plot(alone)):
        figure.canvas.draw()  # pytest turns warnings into errors
    assert repr(Comparison(report, swapped))


# ---------------------------------------------------------------- messages

X, Y = data()
REPORT = SharpnessReport({("trace", "whole"): Estimate(1.0)}, {}, {})


class RootAtZero(nn.Module):
    """A finite loss whose derivatives are not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).abs().sqrt()


MESSAGES = [
    (
        lambda: compared(REPORT, net()),
        TypeError,
        r"a must be a torch.nn.Module, got a SharpnessReport; rl.sharpness.Comp",
    ),
    (lambda: compared(net(), None), TypeError, "b must be a torch.nn.Module, got NoneType"),
    (lambda: compare(net(), net(), data(), F.cross_entropy), TypeError, "loss_fn must be callable|data must be"),
    (lambda: compared(net(), net(), labels=("a", "a")), ValueError, "labels must differ"),
    (lambda: compared(net(), net(), labels="ab"), TypeError, "labels must be two strings"),
    (
        lambda: compared(net(), net(), matvecs=3),
        TypeError,
        "compare has no option 'matvecs'; options: alphas, batch_mass",
    ),
    (lambda: compared(net(), net(), num_matvecs=0), ValueError, "num_matvecs must be at least 1"),
    (lambda: compared(net(), nn.ReLU()), ValueError, r"model 'b': model \(ReLU\) has no parameters"),
    (lambda: compared(net(), models.mlp(4, 5, 2).double()), ValueError, "model 'b': targets hold the label 2"),
    (lambda: compared(net(), models.mlp(5, 5, 3).double()), ValueError, "model 'b': the loss of a batch .* cannot be"),
    (lambda: compared(net(), net().float()), ValueError, "model 'b': .*torch.float32"),
    (lambda: compared(net().float(), net(), labels=("old", "new")), ValueError, "model 'old'"),
    (
        lambda: compare(net(), net(), F.cross_entropy, (X * math.nan, Y)),
        ValueError,
        "model 'a': the loss is not finite",
    ),
    (lambda: compare(net(), net(), F.cross_entropy, (X[:0], Y[:0])), ValueError, "data is empty"),
    (lambda: compare(net(), net(), F.cross_entropy, []), ValueError, "data is empty"),
    (lambda: compared(net(7, 6), net(5), blocks="layer3.weight"), ValueError, "model 'b': .*layer3.weight"),
    (lambda: Comparison(net(), REPORT), TypeError, "a must be a SharpnessReport, got .*; rl.compare"),
    (lambda: REPORT.plot(net()), TypeError, "other must be a SharpnessReport, got .*; rl.compare"),
    (lambda: REPORT.plot(REPORT, labels=("a", "a")), ValueError, "labels must differ"),
    (
        lambda: sharpness_report(RootAtZero(), nn.MSELoss(), (X, X[:, :1] * 0), progress=False),
        ValueError,
        "not finite. Likely causes",
    ),
]


@pytest.mark.parametrize(("call", "error", "match"), MESSAGES)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_one_sample_and_a_constant_loss_are_measured_or_have_a_reason():
    x, y = data(1)
    report = sharpness_report(net(), F.cross_entropy, (x, y), blocks=False, progress=False)
    assert math.isfinite(report["trace"].value)
    constant = sharpness_report(net(), lambda out, y: torch.tensor(1.0).double(), data(), blocks=False, progress=False)
    for measure in ("trace", "fisher_rao_norm", "relative_flatness", "sam_sharpness_l2", "gradient_norm"):
        assert constant[measure].value == 0.0
    assert "all zero" in constant.notes["renyi_sharpness_1", "whole"]
