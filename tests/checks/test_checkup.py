"""`checkup` itself: errors, side effects, cost, what it says, and its page."""

from __future__ import annotations

import copy
import html.parser
import os
import random
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import renyi_lab as rl
from renyi_lab.checks import Checkup, Finding
from renyi_lab.checks._spectra import _negative


def line() -> nn.Linear:
    model = nn.Linear(3, 1)
    with torch.no_grad():
        model.weight[:], model.bias[:] = torch.tensor([1.0, -2.0, 0.5]), 0.1
    return model


def points(count: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=generator)
    return x, x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * torch.randn(count, 1, generator=generator)


@pytest.fixture(scope="module")
def network() -> tuple[nn.Module, Any]:
    model, train_set, _ = rl.course.load_network()
    return model, train_set


@pytest.fixture(scope="module")
def found(network: tuple[nn.Module, Any]) -> Checkup:
    return rl.checkup(network[0], F.cross_entropy, network[1], num_matvecs=40)


def test_the_spectrum_is_that_of_estimate_spectrum(network: tuple[nn.Module, Any], found: Checkup) -> None:
    H = rl.HessianOperator(network[0], F.cross_entropy, network[1])
    spectrum = rl.estimate_spectrum(H, num_matvecs=40)
    assert found.spectrum is not None
    assert np.allclose(found.spectrum.nodes, spectrum.nodes, rtol=1e-4, atol=1e-6)
    assert found.cost is not None
    assert found.cost.num_matvecs == 40
    assert found.subject.loss == pytest.approx(H.loss)


def test_the_error_of_the_data_is_that_of_two_halves() -> None:
    """Both halves exactly, for a loss whose Hessian is 2·mean([x, 1]ᵀ[x, 1])."""
    x, y = points()
    found = rl.checkup(line(), nn.MSELoss(), (x, y), seed=5)
    in_first = torch.zeros(60, dtype=torch.bool)
    in_first[torch.randperm(60, generator=torch.Generator().manual_seed(5))[:30]] = True

    def entropy(chosen: Tensor) -> float:
        columns = torch.cat([x, torch.ones(60, 1)], 1)[chosen].double()
        eigenvalues = torch.linalg.eigvalsh(2 * columns.T @ columns / len(columns))
        return rl.renyi_entropy(eigenvalues.numpy(), 2.0)

    first, second, whole = entropy(in_first), entropy(~in_first), entropy(torch.ones(60, dtype=torch.bool))
    expected = np.hypot((first - second) / 2, whole - (first + second) / 2)
    assert found.data_errors[2.0] == pytest.approx(expected, rel=1e-3)


def test_nothing_is_left_behind() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    model[1].eval()
    model(points()[0]).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    before, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()
    rl.checkup(model, nn.MSELoss(), points(), num_matvecs=10)
    rl.checkup(model, nn.MSELoss(), torch.utils.data.DataLoader(list(zip(*points(), strict=True)), shuffle=True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tobytes() == states[1]
    assert random.getstate() == states[2]


def test_warnings_are_findings(recwarn: pytest.WarningsRecorder) -> None:
    found = rl.checkup(nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5)), nn.MSELoss(), points(), mode="train")
    assert not found.trustworthy
    assert not recwarn.list


def test_results_repeat() -> None:
    one, other = (rl.checkup(line(), nn.MSELoss(), points(), seed=3) for _ in range(2))
    assert repr(one) == repr(other)


def test_a_loss_that_does_not_depend_on_its_scale_has_the_same_findings(network: tuple[nn.Module, Any]) -> None:
    for factor in (1e-4, 1e4):
        scaled = rl.checkup(
            network[0], lambda outputs, y, c=factor: c * F.cross_entropy(outputs, y), network[1], num_matvecs=40
        )
        assert scaled.trustworthy, scaled.troubles


def test_it_prints_what_is_trustworthy_and_what_is_not() -> None:
    model = line().requires_grad_(False)
    model.bias.requires_grad_(True)
    text = repr(rl.checkup(model, nn.MSELoss(), points()))
    assert "1 of 4 parameters" in text
    assert text.index("Not trustworthy:") < text.index("frozen parameters") < text.index("\nTrustworthy:")
    assert max(map(len, text.splitlines())) <= 120


def test_sums_are_checked_as_sums() -> None:
    found = rl.checkup(line(), nn.MSELoss(reduction="sum"), points())
    assert found.trustworthy, found.troubles
    own = rl.checkup(line(), lambda outputs, y: (outputs - y).square().sum(), points(), reduction="sum")
    assert own.trustworthy, own.troubles


def test_batches_of_their_own_mass() -> None:
    x, y = points()
    batches = [{"x": x[:20], "y": y[:20]}, {"x": x[20:], "y": y[20:]}]
    found = rl.checkup(
        line(),
        lambda model, batch: F.mse_loss(model(batch["x"]), batch["y"]),
        batches,
        batch_mass=lambda batch: len(batch["y"]),
    )
    assert found.trustworthy, found.troubles


class NotALoss:
    pass


@pytest.mark.parametrize(
    ("model", "loss_fn", "data", "options", "error", "word"),
    [
        (nn.ReLU(), nn.MSELoss(), points(), {}, ValueError, "no trainable parameters"),
        (line().requires_grad_(False), nn.MSELoss(), points(), {}, ValueError, "requires_grad_"),
        (line(), nn.MSELoss(), (torch.zeros(0, 3), torch.zeros(0, 1)), {}, ValueError, "data is empty"),
        (line(), nn.MSELoss(), [], {}, ValueError, "data is empty"),
        (lambda x: x, nn.MSELoss(), points(), {}, TypeError, "torch.nn.Module"),
        (line(), NotALoss(), points(), {}, TypeError, "loss_fn must be callable"),
        (line(), nn.MSELoss(), 3, {}, TypeError, "data must be"),
        (line(), nn.MSELoss(), points(), {"num_matvecs": 0}, ValueError, "num_matvecs"),
        (line(), nn.MSELoss(), points(), {"seed": -1}, ValueError, "seed"),
        (line(), nn.MSELoss(), points(), {"mode": "test"}, ValueError, "mode"),
        (line(), nn.MSELoss(), points(), {"reduction": "none"}, ValueError, "reduction"),
        (line(), nn.MSELoss(), points(), {"batch_mass": 3}, TypeError, "batch_mass"),
        (line(), nn.MSELoss(), points(), {"loss_style": "both"}, ValueError, "loss_style"),
    ],
)
def test_mistakes_of_the_call_are_errors(
    model: Any, loss_fn: Any, data: Any, options: dict[str, Any], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        rl.checkup(model, loss_fn, data, **options)


@pytest.mark.parametrize("num_matvecs", [1, 2, 15, 16, 17])
def test_few_products_are_enough_for_a_result(network: tuple[nn.Module, Any], num_matvecs: int) -> None:
    found = rl.checkup(network[0], F.cross_entropy, network[1], num_matvecs=num_matvecs)
    assert found.spectrum is not None
    assert found.spectrum.num_matvecs == num_matvecs
    assert {finding.status for finding in found.findings} <= {"ok", "warning"}


def test_a_layer_without_a_second_derivative_is_a_problem() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * 3 * ctx.saved_tensors[0] ** 2

    class Model(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return Once.apply(super().forward(x))

    found = rl.checkup(Model(3, 1), nn.MSELoss(), points())
    assert found.spectrum is None
    assert any(f.status == "problem" and "differentiated twice" in f.message for f in found.findings)


def test_a_gradient_that_is_not_the_derivative_is_a_problem() -> None:
    class Through(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.round()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    class Model(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return Through.apply(5 * super().forward(x)) / 5

    found = rl.checkup(Model(3, 1), nn.MSELoss(), points())
    assert "finite differences" in [finding.name for finding in found.troubles]


# The page


class Parsed(html.parser.HTMLParser):
    """Tags, attributes and text of a page; fails on tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_self_contained_and_the_same_each_time(found: Checkup, tmp_path: Path) -> None:
    path = found.to_html(tmp_path / "one.html")
    assert path == tmp_path / "one.html"
    text = path.read_text(encoding="utf-8")
    assert found.to_html(str(tmp_path / "two.html")).read_text(encoding="utf-8") == text
    parsed = Parsed(text)
    assert not [tag for tag, _ in parsed.tags if tag in ("script", "link", "iframe", "object")]
    sources = [value for _, attributes in parsed.tags for key, value in attributes.items() if key in ("src", "href")]
    assert len(sources) == 1
    assert str(sources[0]).startswith("data:image/png;base64,")
    assert "http" not in text.replace("http-equiv", "")
    image = next(attributes for tag, attributes in parsed.tags if tag == "img")
    assert str(image["alt"]).startswith("Density of the eigenvalues")
    assert sorted(os.listdir(tmp_path)) == ["one.html", "two.html"]


def test_the_page_shows_findings_entropies_blocks_and_versions(found: Checkup, tmp_path: Path) -> None:
    text = Parsed(found.to_html(tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert all(finding.name in text and finding.message in text for finding in found.findings)
    assert found.spectrum is not None
    assert f"{found.spectrum.report().entropy[1.5]:.4g}" in text
    assert f"{found.data_errors[1.5]:.1g}" in text
    for word in ("layer1.weight", "32 × 40", "2,698", torch.__version__, "1,000 samples", "What may be claimed"):
        assert word in text


def test_the_page_shows_a_report(network: tuple[nn.Module, Any], found: Checkup, tmp_path: Path) -> None:
    x, y = network[1].tensors
    report = rl.sharpness_report(network[0], F.cross_entropy, (x[:50], y[:50]), num_matvecs=5, blocks=False)
    text = Parsed(found.to_html(tmp_path / "page.html", report=report).read_text(encoding="utf-8")).text
    assert f"{report['trace'].value:.4g}" in text
    assert "gradient_norm" in text
    assert report.notes["distance_from_initialization", "whole"] in text
    other = rl.sharpness_report(line(), nn.MSELoss(), points(), num_matvecs=5, blocks=False)
    with pytest.raises(ValueError, match="of 4 parameters"):
        found.to_html(tmp_path / "other.html", report=other)
    with pytest.raises(TypeError, match="sharpness_report"):
        found.to_html(tmp_path / "other.html", report=found.spectrum)  # type: ignore[arg-type]


def test_the_page_has_a_date_and_a_title_only_if_given(found: Checkup, tmp_path: Path) -> None:
    page = found.to_html(tmp_path / "page.html", title="My <network>", date="2020-02-03").read_text(encoding="utf-8")
    assert "<title>My &lt;network&gt;</title>" in page
    assert "2020-02-03" in page
    assert not re.search(r"20\d\d-\d\d", found.to_html(tmp_path / "page.html").read_text(encoding="utf-8"))


def test_the_page_escapes_everything(tmp_path: Path) -> None:
    evil = "<script>alert('&')</script>"
    loss = nn.MSELoss()
    loss_fn: Any = lambda outputs, y: loss(outputs, y)  # noqa: E731
    loss_fn.__name__ = evil
    model = type(evil, (nn.Linear,), {})(3, 1)
    found = rl.checkup(model, loss_fn, points())
    found.findings.append(Finding(evil, "warning", evil))
    parsed = Parsed(found.to_html(tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "script" not in [tag for tag, _ in parsed.tags]
    assert parsed.text.count(evil) >= 4
    assert "<script" not in found._repr_html_()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_page_without_a_spectrum(tmp_path: Path, dtype: torch.dtype) -> None:
    x, y = points()
    model = nn.Linear(3, 1).to(dtype)
    found = rl.checkup(model, nn.L1Loss(), (x.to(dtype), y.to(dtype)))
    text = Parsed(found.to_html(tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "There is no spectrum to show" in text
    assert "Nothing may be claimed" in text
    assert found.troubles[0].message in text


def test_a_link_stays_a_link(found: Checkup, tmp_path: Path) -> None:
    (tmp_path / "target.html").write_text("old")
    (tmp_path / "link.html").symlink_to(tmp_path / "target.html")
    found.to_html(tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "target.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_place_that_cannot_be_written_to_is_named(found: Checkup, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder"):
        found.to_html(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        found.to_html(tmp_path / "missing" / "page.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="does not exist"):
        found.to_html(tmp_path / "file" / "page.html")
    (tmp_path / "loop.html").symlink_to("loop.html")
    for name in ("loop.html", "a\0b.html", "a" * 300):
        with pytest.raises(OSError, match=r"cannot be written to .*is not a file name that this system knows"):
            found.to_html(tmp_path / name)


def test_a_folder_without_permission(found: Checkup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old page stays; root may write anywhere, so that the refusal is the operating system's by hand."""
    path = tmp_path / "page.html"
    path.write_text("old")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    if os.geteuid() == 0:
        monkeypatch.setattr(Path, "write_text", refuse)
    else:
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(PermissionError, match=r"cannot be written.*Permission denied"):
            found.to_html(path)
    finally:
        tmp_path.chmod(stat.S_IRWXU)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_numbers_of_the_table_are_not_bare(found: Checkup, tmp_path: Path) -> None:
    """NaN and infinities have words."""
    text = Parsed(found.to_html(tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert not re.search(r"\bnan\b", text)


def test_colours_have_contrast() -> None:
    """At least 4.5 : 1 on white (WCAG AA)."""
    page = Path(rl.checks.__file__).with_name("_page.html").read_text()

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in re.findall(r"[^-]color: #([0-9a-f]{6})", page):
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5, colour


@pytest.mark.parametrize("path", [None, 3, b"page.html"])
def test_a_path_of_another_type_is_refused(found: Checkup, path: Any) -> None:
    with pytest.raises(TypeError, match="path must be the name of a file"):
        found.to_html(path)


def test_a_name_that_is_too_long_is_refused(found: Checkup, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be written"):
        found.to_html(tmp_path / ("x" * 300))
    assert not list(tmp_path.iterdir())


def test_a_title_is_text(found: Checkup, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="title must be text"):
        found.to_html(tmp_path / "page.html", title=3)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_negative_curvature_in_many_small_eigenvalues_is_no_saddle() -> None:
    """As in residual networks with batch norm after a few epochs; one of the size of the largest is."""
    small = np.concatenate([np.full(46, -0.05), np.full(44, 0.05), [0.3]])
    large = np.array([-0.46, 0.54])
    findings = [_negative(rl.exact_spectrum(np.diag(values))) for values in (small, large)]
    assert [finding.status for finding in findings] == ["ok", "warning"]
    assert _negative(rl.exact_spectrum(np.diag([-0.05] * 60 + [0.05] * 40 + [0.3]))).status == "warning"
