"""All bounds of one network side by side, each equal to what its own function gives."""

from __future__ import annotations

import copy
import html
import importlib
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from renyi_lab import bounds
from renyi_lab.operators import HessianOperator
from renyi_lab.posterior import GaussianPosterior
from renyi_lab.spectrum import Spectrum, exact_spectrum
from renyi_lab.training import evaluate, train

SIGMAS, ALPHAS, RHO = (0.05, 0.2), (0.5, 2.0), 0.05


def data(count: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (count,), generator=generator)
    noise = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return 2.5 * torch.eye(3, dtype=torch.float64)[labels] + noise, labels


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    initial = nn.Linear(3, 3).double()  # the training's rounding changes nothing at the tolerances below
    model = copy.deepcopy(initial)
    train(model, data(), epochs=5)
    return model, initial


@pytest.fixture(scope="module")
def report(pair: tuple[nn.Module, nn.Module]) -> bounds.BoundReport:
    model, initial = pair
    options: dict[str, Any] = {"sigmas": SIGMAS, "alphas": ALPHAS, "rho": RHO, "num_draws": 40, "num_matvecs": 20}
    return bounds.bound_report(model, data(), initial=initial, **options)


NAMES = [
    "PAC-Bayes, McAllester/Maurer",
    "PAC-Bayes, Langford–Seeger",
    "PAC-Bayes, Catoni",
    "PAC-Bayes, Laplace posterior",
    "PAC-Bayes, Laplace posterior, Rényi at α = 0.5",
    "PAC-Bayes, Laplace posterior, Rényi at α = 2",
    "SAM",
    "level set, log-determinant",
    "level set, as stated by Jia & Su",
    "level set, Rényi entropy at α = 0.5",
    "level set, Rényi entropy at α = 2",
]


def test_the_report_holds_every_bound_and_whether_it_is_a_certificate(report: bounds.BoundReport):
    frame = report.to_frame()
    assert list(frame.index) == NAMES
    assert list(frame["certificate"]) == [True] * 6 + [False] * 5
    assert frame.loc["PAC-Bayes, Catoni", "trivial"] == pytest.approx(2 / 3)
    assert (frame["vacuous"] == (frame["value"] >= frame["trivial"])).all()
    text = html.unescape(report._repr_html_())
    assert all(name in repr(report) and name in text for name in NAMES)


def test_order_of_the_bounds(report: bounds.BoundReport):
    value = {name: report[name].value for name in NAMES}
    assert value["PAC-Bayes, Langford–Seeger"] <= value["PAC-Bayes, McAllester/Maurer"]
    for alpha in ("0.5", "2"):
        renyi = value[f"PAC-Bayes, Laplace posterior, Rényi at α = {alpha}"]
        assert value["PAC-Bayes, Laplace posterior"] <= renyi
        assert value["level set, log-determinant"] <= value[f"level set, Rényi entropy at α = {alpha}"]
    assert value["PAC-Bayes, Laplace posterior"] < 1


def test_pac_bayes_splits_delta_among_the_grid_and_the_draws(
    report: bounds.BoundReport, pair: tuple[nn.Module, nn.Module]
):
    bound = report["PAC-Bayes, Langford–Seeger"]
    sigma, each = bound.terms["sigma"], 0.05 / 2 / len(SIGMAS)
    posterior = GaussianPosterior(pair[0], sigma)
    assert bound.terms["kl"] == pytest.approx(posterior.kl(GaussianPosterior(pair[1], sigma)), rel=1e-12)
    loss = posterior.gibbs_error(data(), 40).upper_limit(each)
    assert bound.value == pytest.approx(bounds.langford_seeger(loss, bound.terms["kl"], 300, each).value, rel=1e-12)


def test_sam_takes_the_error_after_one_ascent_step(report: bounds.BoundReport, pair: tuple[nn.Module, nn.Module]):
    model = copy.deepcopy(pair[0])
    gradients = torch.autograd.grad(nn.functional.cross_entropy(model(data()[0]), data()[1]), list(model.parameters()))
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter += RHO / norm * gradient
    worst = max(1 - float(evaluate(m, data()).accuracy or 0) for m in (model, pair[0]))
    size = math.sqrt(sum(float(p.detach().square().sum()) for p in pair[0].parameters()))
    expected = bounds.sam_bound(worst, size, RHO, 12, 300)
    assert report["SAM"].value == pytest.approx(expected.value, rel=1e-6)


def test_level_sets_use_the_clipped_damped_rescaled_spectrum(
    report: bounds.BoundReport, pair: tuple[nn.Module, nn.Module]
):
    spectrum = exact_spectrum(HessianOperator(pair[0], nn.CrossEntropyLoss(), data()))
    damping = 1e-3 * float(spectrum.magnitudes.max())
    values = (spectrum.nodes.clip(min=0) + damping) / bounds.LOSS_CLIP
    loss = evaluate(pair[0], data()).loss / bounds.LOSS_CLIP
    volume = bounds.ball_log_volume(SIGMAS[1] * math.sqrt(12), 12)
    basin = bounds.Basin(loss, 12, volume, negative_ratio=bounds.negative_ratio(spectrum, damping))
    expected = bounds.level_set(basin, float(np.log(values).sum()), 300)
    assert report["level set, log-determinant"].value == pytest.approx(expected.value, rel=1e-6)
    scaled = Spectrum.from_eigenvalues(values)
    expected = bounds.renyi_level_set(basin, float(scaled.renyi_entropy(2.0)), values.sum(), 2.0, 300)
    assert report["level set, Rényi entropy at α = 2"].value == pytest.approx(expected.value, rel=1e-6)


def test_renyi_bounds_that_do_not_fall_with_the_entropy_have_a_caveat(report: bounds.BoundReport):
    renyi = [bound for bound in report.bounds if "Rényi" in bound.name]
    assert len(renyi) == 2 * len(ALPHAS)
    for bound in renyi:
        caveat = any("does not fall when the Rényi entropy grows" in line for line in bound.assumptions)
        assert caveat == (float(bound.name.rpartition(" ")[2]) <= 1)


def test_model_and_random_state_are_unchanged(pair: tuple[nn.Module, nn.Module]):
    model, initial = copy.deepcopy(pair)
    model.weight.grad = torch.ones_like(model.weight)
    model.train()
    state, weights = torch.get_rng_state(), copy.deepcopy(model.state_dict())
    bounds.bound_report(model, data(), initial=initial, num_draws=2, num_matvecs=12)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(model.weight.grad, torch.ones_like(model.weight))
    assert model.training
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_the_benchmark_never_reports_a_renyi_bound_below_what_it_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    threads = torch.get_num_threads()
    try:
        module = importlib.import_module("bound_alpha")
        module.main(["--quick", "--threads", "1", "--out", str(tmp_path / "a.json"), "--cache", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    result = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    rows = result["alphas"]
    assert [row["alpha"] for row in rows] == [0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0, "inf"]
    for row in rows:
        assert row["log_determinant_per_parameter"] <= row["renyi_log_determinant_per_parameter"]
        assert row["level_set"] <= row["renyi_level_set"]
        assert row["laplace_kl"] <= row["renyi_laplace_kl"]
    looseness = [row["renyi_log_determinant_per_parameter"] for row in rows]
    assert looseness == sorted(looseness)
    assert result["certificate"]["value"] == min(route["bound"] for route in result["certificate"]["routes"])


# --- binary classifiers -----------------------------------------------------------------------------------------


class OneLogit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 1).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).squeeze(1)


class TwoScores(OneLogit):
    """As the message has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = super().forward(x)
        return torch.stack([torch.zeros_like(f), f], 1)


def test_two_scores_stand_for_one_logit():
    x, labels = data(60)
    y = (labels > 0).double()
    loss_fn = nn.BCEWithLogitsLoss()
    single, double = evaluate(OneLogit(), (x, y), loss_fn=loss_fn), evaluate(TwoScores(), (x, y.long()))
    assert double.loss == pytest.approx(single.loss, rel=1e-12)
    assert double.accuracy == single.accuracy
    cross_entropy = HessianOperator(TwoScores(), nn.CrossEntropyLoss(), (x, y.long())).to_dense()
    torch.testing.assert_close(cross_entropy, HessianOperator(OneLogit(), loss_fn, (x, y)).to_dense())
    report = bounds.bound_report(TwoScores(), (x, y.long()), initial=TwoScores(), num_draws=2, num_matvecs=4)
    assert report["SAM"].terms["worst_loss"] >= 1 - double.accuracy


BINARY = data(9)[0], (data(9)[1] > 0).double()
SUGGESTION = r"scores \(0, f\), as torch.stack\(\[torch.zeros_like\(f\), f\], 1\).*y.long\(\)"


# --- messages ---------------------------------------------------------------------------------------------------


def refused(**changed: Any) -> Callable[[], bounds.BoundReport]:
    small = nn.Linear(3, 3).double()
    good = {"model": small, "initial": copy.deepcopy(small), "train_set": data(), "num_draws": 2, "num_matvecs": 12}
    return partial(bounds.bound_report, **{**good, **changed})


NETWORK = nn.Linear(3, 3).double()


EARLIER = r"is a keyword now: call bound_report\(model, train_set, initial=initial\)"
MESSAGES = [
    (refused(model="mlp"), TypeError, r"model must be a torch\.nn\.Module"),
    (refused(initial="mlp"), TypeError, "initial must be the network before training, but got str"),
    (refused(initial=None), TypeError, r"it is missing: .* prior's mean.* copy.deepcopy\(model\) before train"),
    (refused(model=NETWORK, initial=NETWORK), ValueError, "initial shares its weights with model.*copy.deepcopy"),
    (lambda: bounds.bound_report(NETWORK, NETWORK, data()), TypeError, EARLIER),
    (lambda: bounds.bound_report(NETWORK, NETWORK), TypeError, EARLIER),
    (lambda: bounds.bound_report(NETWORK, data(), NETWORK), TypeError, EARLIER),
    (refused(initial=nn.Linear(3, 3, bias=False)), ValueError, "same trainable weights"),
    (refused(train_set=(torch.ones(0, 3), torch.ones(0))), ValueError, "train_set is empty"),
    (refused(train_set=(torch.ones(9, 3), torch.zeros(9, 3))), ValueError, "class indices|targets"),
    (refused(model=OneLogit(), train_set=BINARY), ValueError, f"must be class indices .*{SUGGESTION}"),
    (refused(model=OneLogit().linear, train_set=(BINARY[0], BINARY[1].long())), ValueError, f"got .*1.*{SUGGESTION}"),
    (refused(train_set=([data()[0]], data()[1])), TypeError, "inputs must be one tensor here, got a list"),
    (refused(sigmas=()), ValueError, "at least one number"),
    (refused(sigmas=0.1), TypeError, "sigmas must be a sequence of numbers"),
    (refused(alphas=1.0), TypeError, "alphas must be a sequence of numbers"),
    (refused(sigmas=(0.0,)), ValueError, "each of sigmas must lie in"),
    (refused(alphas=(-1.0,)), ValueError, "each of alphas must lie in"),
    (refused(rho=0.0), ValueError, "rho must lie in"),
    (refused(delta=0.0), ValueError, "delta must lie in"),
    (refused(delta=2.0), ValueError, "delta must lie in .* got 2"),
    (refused(delta="0.05"), TypeError, "delta must be a real number"),
    (refused(num_draws=0), ValueError, "num_draws must be at least 1"),
    (lambda: bounds.BoundReport((bounds.maurer(0.1, 1.0, 100).renamed("SAM"),))["sam"], KeyError, "SAM"),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
