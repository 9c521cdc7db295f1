"""Explorers, driven without a browser; what they show is compared with what the library computes."""

from __future__ import annotations

import base64
import gc
import html
import io
import math
import re
import time
import warnings
from typing import Any

import ipywidgets
import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image

from renyi_lab import Spectrum, estimate_spectrum, matrix_with_spectrum
from renyi_lab.plots import new_figure
from renyi_lab.widgets import AlphaExplorer, Explorer

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def spectrum() -> Spectrum:
    return Spectrum.from_eigenvalues(np.concatenate([[8.0, 4.0, 2.0, -1.0], np.geomspace(1e-4, 1e-2, 60), [0.0]]))


@pytest.fixture
def explorer(spectrum: Spectrum) -> AlphaExplorer:
    return AlphaExplorer(spectrum, alpha=1.0)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def caption_numbers(explorer: AlphaExplorer) -> list[float]:
    text = html.unescape(re.sub("<[^>]*>", "", explorer.caption.value)).replace(",", "")
    return [float(number) for number in re.findall(r"\d+\.?\d*", text)]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.5, 4.0])
def test_moving_the_slider_moves_picture_marker_shares_and_caption(spectrum: Spectrum, alpha: float) -> None:
    explorer = AlphaExplorer(spectrum, alpha=2.5)
    before = explorer.picture.value
    explorer.alpha.value = alpha
    entropy = spectrum.renyi_entropy(alpha).value
    assert explorer.entropy == entropy
    assert explorer.marker.get_xydata().tolist() == [[alpha, entropy]]
    magnitudes = np.sort(np.abs(spectrum.nodes))
    powers = np.where(magnitudes > 0, magnitudes**alpha, 0.0)
    np.testing.assert_allclose(explorer.shares.get_xdata(), magnitudes)
    np.testing.assert_allclose(explorer.shares.get_ydata(), np.cumsum(powers) / powers.sum(), atol=1e-12)
    changed = np.abs(pixels(explorer.picture.value) - pixels(before)).max(axis=2) > 0
    assert changed[:, :430].any(), "the left picture stayed"
    assert changed[:, 430:].any(), "the right picture stayed"
    shown = caption_numbers(explorer)
    assert shown[:1] == [round(entropy, 3)]
    assert round(math.exp(entropy), 1) in shown
    assert spectrum.dim in shown
    assert round(100 * powers[-1] / powers.sum(), 1) in shown


def test_an_update_draws_what_a_full_redraw_would(explorer: AlphaExplorer) -> None:
    for alpha in (0.5, 3.0):
        explorer.alpha.value = alpha
        fresh = AlphaExplorer(explorer.spectrum, alpha=alpha)
        np.testing.assert_array_equal(pixels(explorer.picture.value), pixels(fresh.picture.value))
        for artist in (fresh.marker, fresh.shares):
            artist.set_animated(False)
        fresh.figure.canvas.draw()
        whole = np.asarray(fresh.figure.canvas.buffer_rgba())[..., :3].astype(int)
        # Apart from the lines' order: the moving curve lies over the frame where it runs along it.
        different = np.abs(pixels(explorer.picture.value) - whole).max(axis=2) > 24
        assert different.sum() <= 5


def test_the_picture_shows_the_marker_where_the_data_are(explorer: AlphaExplorer) -> None:
    explorer.alpha.value = 2.0
    x, y = explorer.marker.axes.transData.transform(explorer.marker.get_xydata()[0])
    picture = pixels(explorer.picture.value)
    assert picture[round(picture.shape[0] - y), round(x)].tolist() == [0xD5, 0x5E, 0x00]


def test_reset_restores_value_and_picture(spectrum: Spectrum) -> None:
    explorer = AlphaExplorer(spectrum, alpha=0.5)
    start, caption = explorer.picture.value, explorer.caption.value
    explorer.alpha.value = 3.0
    assert explorer.picture.value != start
    button = explorer.children[0].children[-1]
    button.click()
    assert explorer.alpha.value == 0.5
    assert (explorer.picture.value, explorer.caption.value) == (start, caption)


def test_a_message_from_the_browser_does_the_same(explorer: AlphaExplorer) -> None:
    explorer.alpha.set_state({"value": 3.0})
    assert explorer.marker.get_xdata()[0] == 3.0


def test_errors_show_in_the_explorer_pass_on_and_go_when_the_next_move_works(
    explorer: AlphaExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = explorer.picture.value

    def broken() -> str:
        raise ValueError("x < y is wrong")

    monkeypatch.setattr(explorer, "_update", broken)
    with pytest.raises(ValueError, match="x < y is wrong"):
        explorer.alpha.value = 2.0
    assert explorer.status.value == "<b>ValueError:</b> x &lt; y is wrong"
    assert explorer.picture.value == before
    monkeypatch.undo()
    explorer.alpha.value = 3.0
    assert explorer.status.value == ""
    assert explorer.picture.value != before


def test_what_a_notebook_stores_is_widget_picture_and_fixed_text(explorer: AlphaExplorer) -> None:
    explorer.alpha.value = 1.5
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {WIDGET_VIEW, "image/png", "text/plain"}
    assert bundle[WIDGET_VIEW]["model_id"] == explorer.model_id
    assert base64.b64decode(bundle["image/png"]) == explorer.picture.value
    assert pixels(explorer.picture.value).shape == (310, 860, 3)
    assert bundle["text/plain"] == "AlphaExplorer()" == repr(AlphaExplorer(explorer.spectrum, alpha=3.0))


def test_pyplot_and_the_back_end_are_left_alone(spectrum: Spectrum) -> None:
    backend = matplotlib.rcParams._get_backend_or_none()
    settings = dict(dict.items(matplotlib.rcParams))  # reading them one by one would choose a back-end
    AlphaExplorer(spectrum).alpha.value = 2.0
    assert _pylab_helpers.Gcf.figs == {}
    assert matplotlib.rcParams._get_backend_or_none() == backend
    assert dict(dict.items(matplotlib.rcParams)) == settings


def test_updates_are_quick_and_leave_no_figures_behind(capsys: pytest.CaptureFixture[str]) -> None:
    eigenvalues = np.random.default_rng(0).pareto(1.0, 5000)
    explorer = AlphaExplorer(Spectrum.from_eigenvalues(eigenvalues))

    def objects(kind: type) -> int:
        gc.collect()
        return sum(isinstance(thing, kind) for thing in gc.get_objects())

    explorer.alpha.value = 0.2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gc walks over lazy modules that warn when asked for their class
        artists = objects(matplotlib.artist.Artist)
        seconds = []
        for alpha in np.linspace(0.25, 3.95, 200):
            start = time.perf_counter()
            explorer.alpha.value = float(alpha)
            seconds.append(time.perf_counter() - start)
        assert objects(matplotlib.artist.Artist) == artists
    with capsys.disabled():
        print(f" [median update {1000 * np.median(seconds):.0f} ms] ", end="")
    assert np.median(seconds) < 0.2, "50 ms is what a slider needs; this machine was four times slower than that"


def test_estimated_spectra_and_plain_eigenvalues_are_taken() -> None:
    eigenvalues = np.concatenate([[5.0, 3.0], np.linspace(0.0, 0.1, 98)])
    exact = Spectrum.from_eigenvalues(eigenvalues)
    for given in (eigenvalues, eigenvalues.tolist(), torch.tensor(eigenvalues)):
        assert AlphaExplorer(given, alpha=2.0).entropy == pytest.approx(exact.renyi_entropy(2.0).value, abs=1e-12)
    estimated = estimate_spectrum(matrix_with_spectrum(torch.tensor(eigenvalues), seed=0), num_matvecs=40)
    explorer = AlphaExplorer(estimated, alpha=2.0)
    assert explorer.status.value == ""
    assert explorer.marker.get_ydata()[0] == estimated.renyi_entropy(2.0).value
    assert "±" in explorer.caption.value
    assert explorer.shares.get_ydata()[-1] == pytest.approx(1.0)
    explorer.alpha.value = 0.5
    assert "40 products in 40 Lanczos steps are few" in explorer.status.value, "warnings belong in the explorer"
    explorer.alpha.value = 2.0
    assert explorer.status.value == ""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0.0, 0.0],), ValueError, "all zero"),
        (([1.0, 2.0], -0.1), ValueError, "alpha must lie in"),
        (([1.0, 2.0], 5.0), ValueError, r"alpha must lie in \[0, 4\], got 5"),
        (([1.0, 2.0], "1"), TypeError, "alpha must be a real number"),
        (([1.0, 2.0], 1.0, 0.0), ValueError, "max_alpha must lie in"),
        (([1.0, math.nan],), ValueError, "finite"),
    ],
)
def test_bad_input_is_named(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AlphaExplorer(*arguments)


def test_in_a_kernel_it_displays_and_answers_to_its_slider() -> None:
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
    models = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert first[WIDGET_VIEW]["model_id"] in models
    assert {"FloatSliderModel", "ImageModel", "ButtonModel"} <= {model["model_name"] for model in models.values()}


def test_the_figure_can_be_saved_with_its_marker(explorer: AlphaExplorer) -> None:
    assert isinstance(explorer.figure, Figure)
    buffer = io.BytesIO()
    explorer.figure.savefig(buffer, format="png")
    assert (pixels(buffer.getvalue()) == [0xD5, 0x5E, 0x00]).all(axis=2).sum() > 50


class _TwoSliders(Explorer):
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
            raise ValueError("no such thing")
        self.line.set_ydata([self.bottom.value, self.top.value])
        return ""


def test_a_control_that_follows_another_and_a_reset_redraw_once() -> None:
    explorer = _TwoSliders()
    explorer.bottom.value = 7.0
    assert (explorer.top.value, explorer.updates) == (7.0, 2)
    explorer.reset()
    assert (explorer.bottom.value, explorer.top.value, explorer.updates) == (1.0, 2.0, 3)
    assert explorer.line.get_ydata() == [1.0, 2.0]


def test_reset_clears_an_error_and_controls_work_after_one() -> None:
    explorer = _TwoSliders()
    with pytest.raises(ValueError, match="no such thing"):
        explorer.bottom.value = 13.0
    assert "no such thing" in explorer.status.value
    explorer.reset()
    assert explorer.status.value == ""
    explorer.bottom.value = 5.0
    assert explorer.line.get_ydata() == [5.0, 5.0]
