"""What all explorers share: the base class, and for each explorer Reset, its stored form and the time of an update."""

from __future__ import annotations

import base64
import gc
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets
import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from explorer_view import ExplorerPage, pixels
from matplotlib import _pylab_helpers
from matplotlib.artist import Artist
from nbclient import NotebookClient
from torch.nn.functional import cross_entropy, mse_loss

from renyi_lab import HessianOperator, datasets, models
from renyi_lab.course import load_results
from renyi_lab.perturbation import haar_orthogonal
from renyi_lab.plots import new_figure
from renyi_lab.study import Study
from renyi_lab.widgets import (
    AlphaExplorer,
    BoundExplorer,
    DifferenceExplorer,
    Explorer,
    LanczosExplorer,
    LandscapeExplorer,
    PerturbationExplorer,
    RadiusExplorer,
    ReparametrizationExplorer,
    RSAMExplorer,
    SpectrumExplorer,
    StudyExplorer,
    TuningExplorer,
)

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class TwoSliders(Explorer):
    """``top`` follows ``bottom``; counts its redraws."""

    def __init__(self) -> None:
        self.bottom, self.top = ipywidgets.FloatSlider(1.0, min=0.0), ipywidgets.FloatSlider(2.0, min=0.0)
        self.updates = 0
        figure = new_figure(3, 2)
        (self.line,) = figure.subplots().plot([0, 1], [0, 1])
        super().__init__([self.bottom, self.top], figure, [self.line])

    def _update(self) -> str:
        self.updates += 1
        self.top.value = max(self.top.value, self.bottom.value)
        if self.bottom.value == 13:
            raise ValueError("x < y is wrong")
        self.line.set_ydata([self.bottom.value, self.top.value])
        return ""


def test_a_control_that_follows_another_and_a_reset_redraw_once() -> None:
    explorer = TwoSliders()
    explorer.bottom.value = 7.0
    assert (explorer.top.value, explorer.updates) == (7.0, 2)
    explorer.reset()
    assert (explorer.bottom.value, explorer.top.value, explorer.updates) == (1.0, 2.0, 3)
    assert explorer.line.get_ydata() == [1.0, 2.0]


@pytest.mark.parametrize("recover", [lambda e: e.reset(), lambda e: setattr(e.bottom, "value", 5.0)])
def test_an_error_is_shown_and_raised_and_disappears_at_the_next_update(recover: Callable[[TwoSliders], None]) -> None:
    explorer = TwoSliders()
    before = explorer.picture.value
    with pytest.raises(ValueError, match="x < y is wrong"):
        explorer.bottom.value = 13.0
    assert explorer.status.value == "<b>ValueError:</b> x &lt; y is wrong"
    assert explorer.picture.value == before
    recover(explorer)
    assert explorer.status.value == ""
    assert explorer.line.get_ydata()[0] == explorer.bottom.value


def test_a_message_from_the_browser_updates_the_explorer() -> None:
    explorer = TwoSliders()
    explorer.bottom.set_state({"value": 3.0})
    assert explorer.line.get_ydata()[0] == 3.0


def test_pyplot_and_the_backend_are_not_changed() -> None:
    backend = matplotlib.rcParams._get_backend_or_none()
    settings = dict(dict.items(matplotlib.rcParams))  # reading them one by one would choose a backend
    TwoSliders().bottom.value = 2.0
    assert _pylab_helpers.Gcf.figs == {}
    assert matplotlib.rcParams._get_backend_or_none() == backend
    assert dict(dict.items(matplotlib.rcParams)) == settings


@pytest.mark.slow
def test_an_explorer_works_in_a_kernel() -> None:
    cells = [
        "import renyi_lab as rl\nexplorer = rl.widgets.AlphaExplorer([4.0, 1.0, 1.0, 0.1])\nexplorer",
        "explorer.alpha.set_state({'value': 2.0})\nexplorer",
        "print(explorer.marker.get_xdata(), explorer.status.value == '')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    first, second = (notebook.cells[i].outputs[-1].data for i in (0, 1))
    assert set(first) == set(second) == {WIDGET_VIEW, "image/png", "text/plain"}
    assert first["image/png"] != second["image/png"]
    assert first["text/plain"] == second["text/plain"] == "AlphaExplorer()"
    assert notebook.cells[2].outputs[0].text == "[2.0] True\n"
    states = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert first[WIDGET_VIEW]["model_id"] in states
    assert {"FloatSliderModel", "ImageModel", "ButtonModel"} <= {state["model_name"] for state in states.values()}


def matrix() -> torch.Tensor:
    return torch.diag(torch.linspace(1.0, 2.0, 60, dtype=torch.float64))


def operator(*sizes: int) -> HessianOperator:
    x = torch.randn(20, sizes[0], generator=torch.Generator().manual_seed(0))
    return HessianOperator(models.mlp(*sizes), cross_entropy, (x, torch.arange(20) % sizes[-1]))


def largest_matrix() -> ReparametrizationExplorer:
    half = np.random.default_rng(0).standard_normal((400, 400))
    return ReparametrizationExplorer(half + half.T, layers={"a": 150, "b": 150, "c": 100})


def estimated() -> ReparametrizationExplorer:
    return ReparametrizationExplorer(operator(40, 100, 100, 10))


def bounds() -> BoundExplorer:
    sigmas, settings = np.geomspace(0.01, 0.3, 30), {"squared_distance": 0.1, "num_samples": 1000, "num_draws": 1000}
    return BoundExplorer(np.geomspace(1e-6, 1, 5000), sigmas, sigmas.tolist(), beta=1e3, **settings)


def differences() -> DifferenceExplorer:
    H = operator(6, 8, 3)
    return DifferenceExplorer(H.model, cross_entropy, H.batches[0].content)


def perturbations() -> PerturbationExplorer:
    return PerturbationExplorer(operator(40, 100, 100, 10), "layer2", directions={"A": haar_orthogonal(100)})


def landscape() -> LandscapeExplorer:
    train_set, test_set = datasets.xor(num_samples=100, targets="signs")
    solutions = [models.two_layer(30, 104, seed=seed) for seed in range(2)]
    return LandscapeExplorer(*solutions, mse_loss, train_set, test_data=test_set)


def tuning() -> TuningExplorer:
    return TuningExplorer(load_results("base_optimizers")["tuning"])


# How to make an explorer, one of its controls, values for it, and a limit in seconds of processor time for an update.
# 0.05 s feels smooth; the limits allow for slower machines.
CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Iterable[Any], float]] = {
    "alpha": (
        lambda: AlphaExplorer(np.random.default_rng(0).pareto(1.0, 5000)),
        lambda e: e.alpha,
        np.linspace(0.25, 3.95, 50),
        0.2,
    ),
    "bound": (bounds, lambda e: e.sigma, np.geomspace(0.01, 0.3, 30)[:25], 0.2),
    "differences": (differences, lambda e: e.step, np.logspace(-11, 0, 45)[:20], 0.15),
    "landscape": (landscape, lambda e: e.t, [0.0, 0.5, 1.0] * 5, 0.1),
    "lanczos": (lambda: LanczosExplorer(matrix()), lambda e: e.step, range(2, 22), 0.2),
    "perturbation": (perturbations, lambda e: e.rho, np.linspace(0.05, 1, 20), 0.1),
    "radius": (lambda: RadiusExplorer(operator(6, 8, 4)), lambda e: e.rho, np.linspace(0.05, 0.95, 19), 0.1),
    "reparametrization": (largest_matrix, lambda e: e.sliders["a"], np.geomspace(0.2, 5.0, 15), 0.25),
    "reparametrization, estimated": (estimated, lambda e: e.sliders["layer1"], np.geomspace(0.2, 5.0, 15), 0.15),
    "rsam": (RSAMExplorer, lambda e: e.alpha, np.linspace(0.5, 3.0, 20), 0.1),
    "spectrum": (lambda: SpectrumExplorer(matrix()), lambda e: e.steps, range(20, 0, -1), 0.2),
    "study": (
        lambda: StudyExplorer(Study.standard()),
        lambda e: e.measure,
        ["trace", "lambda_max", "parameter_norm", "sam_sharpness_l2", "renyi_sharpness [first]"],
        0.1,
    ),
    "tuning": (tuning, lambda e: e.base, ("Adam", "AdamW", "RMSprop"), 0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_explorer_updates_fast_resets_and_stores_its_picture(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, control_of, values, limit = CASES[case]
    explorer = make()
    control = control_of(explorer)
    first, start, text = control.value, explorer.picture.value, explorer.caption.value
    num_artists, seconds = count_artists(), []
    for value in values:
        before = time.process_time()
        control.value = value if isinstance(value, (int, str)) else float(value)
        seconds.append(time.process_time() - before)
    assert explorer.picture.value != start
    assert explorer.status.value == ""
    assert count_artists() == num_artists, "an update leaves artists behind"
    explorer.children[0].children[-1].click()
    assert (control.value, explorer.picture.value, explorer.caption.value) == (first, start, text)
    bundle, metadata = explorer._repr_mimebundle_()
    assert metadata == {"image/png": {"alt": explorer.alt}}
    assert set(bundle) == {WIDGET_VIEW, "image/png", "text/plain"}
    assert bundle[WIDGET_VIEW]["model_id"] == explorer.model_id
    assert base64.b64decode(bundle["image/png"]) == explorer.picture.value
    assert pixels(explorer.picture.value).std() > 5, "the picture is blank"
    assert bundle["text/plain"] == f"{type(explorer).__name__}()"
    with capsys.disabled():
        print(f" [median update {1000 * np.median(seconds):.0f} ms] ", end="")
    assert np.median(seconds) < limit


def state(explorer: Explorer) -> tuple[Any, ...]:
    lines = [line.get_xydata().tobytes() for axes in explorer.figure.axes for line in axes.lines]
    images = [image.get_array().tobytes() for axes in explorer.figure.axes for image in axes.images]
    values = [control.value for control in explorer._controls]
    return values, explorer.caption.value, explorer.status.value, explorer.picture.value, explorer.alt, lines, images


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_page_of_every_explorer_shows_what_the_slider_shows_and_changes_nothing(case: str) -> None:
    make, control_of, _, _ = CASES[case]
    explorer, calls = make(), []
    control = control_of(explorer)
    for other in explorer._controls:
        other.observe(calls.append)
    before = state(explorer)
    page = ExplorerPage(explorer.to_html())
    assert state(explorer) == before
    assert calls == []
    assert len(page.text.encode()) < (1_000_000 if case == "perturbation" else 450_000)  # ρ changes a colour map
    fewest = min(20, len(getattr(control, "options", range(20))))
    assert fewest <= len(page.stops) <= 62
    assert len(set(page.values)) == len(page.stops)
    assert page.image["alt"] == page.stops[page.start]["alt"] == explorer.alt
    assert len({stop["alt"] for stop in page.stops}) > len(page.stops) / 2
    assert_same_picture(page.picture(page.start), explorer)
    for index in (0, len(page.stops) - 1):
        if "index" in control.trait_names():
            control.index = 0 if index == 0 else len(control.options) - 1
        else:
            end = control.max if index else control.min
            control.value = getattr(control, "base", 1) ** end if case.startswith("reparametrization") else end
        assert page.stops[index]["caption"] == explorer.caption.value
        assert_same_picture(page.picture(index), explorer)


def assert_same_picture(shown: np.ndarray, explorer: Explorer) -> None:
    """The same up to the reduction of a colour map to 256 colours."""
    difference = np.abs(shown - pixels(explorer.picture.value))
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.999) < 40


def count_artists() -> int:
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lazy modules warn when asked for their class
        return sum(isinstance(thing, Artist) for thing in gc.get_objects())
