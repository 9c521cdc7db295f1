"""`AlphaExplorer` against the entropies of the library."""

from __future__ import annotations

import html
import io
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from explorer_view import caption, pixels
from matplotlib.figure import Figure

from renyi_lab import Spectrum, estimate_spectrum, matrix_with_spectrum
from renyi_lab.widgets import AlphaExplorer


@pytest.fixture
def spectrum() -> Spectrum:
    return Spectrum.from_eigenvalues(np.concatenate([[8.0, 4.0, 2.0, -1.0], np.geomspace(1e-4, 1e-2, 60), [0.0]]))


@pytest.fixture
def explorer(spectrum: Spectrum) -> AlphaExplorer:
    return AlphaExplorer(spectrum, alpha=1.0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.5, 4.0])
def test_the_slider_moves_picture_marker_shares_and_caption(spectrum: Spectrum, alpha: float) -> None:
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
    assert changed[:, :430].any(), "the left picture did not change"
    assert changed[:, 430:].any(), "the right picture did not change"
    shown = [float(number) for number in re.findall(r"\d+\.?\d*", caption(explorer).replace(",", ""))]
    assert shown[:1] == [round(entropy, 3)]
    assert round(math.exp(entropy), 1) in shown
    assert spectrum.dim in shown
    assert round(100 * powers[-1] / powers.sum(), 1) in shown


def test_an_update_draws_the_same_as_a_full_redraw(explorer: AlphaExplorer) -> None:
    for alpha in (0.5, 3.0):
        explorer.alpha.value = alpha
        fresh = AlphaExplorer(explorer.spectrum, alpha=alpha)
        np.testing.assert_array_equal(pixels(explorer.picture.value), pixels(fresh.picture.value))
        for artist in (fresh.marker, fresh.shares):
            artist.set_animated(False)
        fresh.figure.canvas.draw()
        redrawn = np.asarray(fresh.figure.canvas.buffer_rgba())[..., :3].astype(int)
        # Except where the moving curve is drawn over the frame instead of below it.
        different = np.abs(pixels(explorer.picture.value) - redrawn).max(axis=2) > 24
        assert different.sum() <= 5


def test_the_marker_is_drawn_at_its_data(explorer: AlphaExplorer) -> None:
    explorer.alpha.value = 2.0
    x, y = explorer.marker.axes.transData.transform(explorer.marker.get_xydata()[0])
    picture = pixels(explorer.picture.value)
    assert picture.shape == (310, 860, 3)
    assert picture[round(picture.shape[0] - y), round(x)].tolist() == [0xD5, 0x5E, 0x00]


def test_a_saved_figure_has_the_marker(explorer: AlphaExplorer) -> None:
    assert isinstance(explorer.figure, Figure)
    buffer = io.BytesIO()
    explorer.figure.savefig(buffer, format="png")
    assert (pixels(buffer.getvalue()) == [0xD5, 0x5E, 0x00]).all(axis=2).sum() > 50


def test_estimated_spectra_and_plain_eigenvalues_are_accepted() -> None:
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
    with pytest.warns(UserWarning, match="only an upper bound") as caught:
        estimated.renyi_entropy(0)
    explorer.alpha.value = 0
    assert html.unescape(explorer.status.value) == str(caught[0].message), "the explorer must show the warning"
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
def test_messages(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AlphaExplorer(*arguments)
