"""`Explorer.to_html`: values and pictures of a page, what remains unchanged, and bad input."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
from explorer_view import ExplorerPage, pixels
from PIL import features

from renyi_lab.plots import new_figure
from renyi_lab.widgets import Explorer, ReparametrizationExplorer, _page

SLIDER = ipywidgets.FloatSlider


class Small(Explorer):
    """A line at the height of the first control; the second control follows the first upwards."""

    def __init__(self, *controls: Any, noise: int = 0) -> None:
        self.updates, self.error = 0, ...
        figure = new_figure(2, 1.4)
        axes = figure.subplots()
        (self.line,) = axes.plot([0, 1], [0, 0])
        axes.set(ylim=(0, 10))
        self.image = axes.imshow(np.zeros((50, 50)), extent=(0, 1, 0, 10), aspect="auto", vmin=0, vmax=1)
        self.noise = noise
        super().__init__(controls, figure, [self.image, self.line], shows="A line.")

    def _update(self) -> str:
        self.updates += 1
        value = self._controls[0].value if self._controls else 0
        if value == self.error:
            raise ValueError(f"{value} is wrong")
        if isinstance(value, (int, float)):
            self.line.set_ydata([value, value])
            if len(self._controls) > 1:
                self._controls[1].value = max(self._controls[1].value, value)
            if self.noise:
                self.image.set_data(np.random.default_rng(int(value)).random((50, 50)))
        return f"at <b>{value}</b><br>H<sub>α</sub> &lt; 1"


def slider(
    value: float = 3.0, low: float = 0.0, high: float = 10.0, step: float | None = 1.0
) -> ipywidgets.FloatSlider:
    return SLIDER(value=value, min=low, max=high, step=step, description="x", readout_format=".2f")


def page(*controls: Any) -> ExplorerPage:
    return ExplorerPage(Small(*controls).to_html())


def test_alternative_texts_are_the_description_and_the_caption_without_tags() -> None:
    explorer = Small(slider())
    assert explorer.alt == "A line. at 3.0 · Hα < 1"
    shown = ExplorerPage(explorer.to_html())
    assert shown.image["alt"] == explorer.alt
    assert [stop["alt"] for stop in shown.stops][:2] == ["A line. at 0.0 · Hα < 1", "A line. at 1.0 · Hα < 1"]
    _, metadata = explorer._repr_mimebundle_()
    assert metadata == {"image/png": {"alt": explorer.alt}}


def test_an_explorer_without_a_description_is_named() -> None:
    class Plain(Small):
        def __init__(self) -> None:
            figure = new_figure(2, 2)
            Explorer.__init__(self, [slider()], figure, [])

        def _update(self) -> str:
            return "text"

    assert Plain().alt == "Picture of Plain. text"


def test_the_slider_has_the_values_of_the_control() -> None:
    assert page(slider()).values == [f"{value}.00" for value in range(11)]
    assert page(slider(3.3)).values[2:5] == ["2.00", "3.30", "4.00"]
    counted = page(ipywidgets.IntSlider(5, min=1, max=9, step=2))
    assert (counted.values, counted.start) == (["1", "3", "5", "7", "9"], 2)
    powers = page(ipywidgets.FloatLogSlider(2.0, base=2, min=-2, max=2, step=1, readout_format=".3g"))
    assert (powers.values, powers.start) == (["0.25", "0.5", "1", "2", "4"], 3)
    chosen = page(ipywidgets.Dropdown(options={"one": 1, "two": 2, "four": 4}, value=4, description="n"))
    assert (chosen.values, chosen.start) == (["one", "two", "four"], 2)
    assert "2.0" in page(slider(step=None)).text
    assert page(SLIDER(1.0, max=2.0, step=0.5, readout_format="s")).values == ["0", "0.5", "1", "1.5", "2"]


@pytest.mark.parametrize("value", [0.0, 0.05, 33.35, 1000.0])
def test_many_values_are_thinned_evenly_with_both_ends_and_the_present_one(value: float) -> None:
    shown = page(slider(value, 0.0, 1000.0, 0.05))
    found = [float(text) for text in shown.values]
    assert found[shown.start] == value
    assert (found[0], found[-1]) == (0.0, 1000.0)
    assert len(found) <= 63
    assert len(set(np.diff(found[1:-1]).round(2))) == 1


def test_only_one_value_makes_a_page_whose_slider_says_so() -> None:
    shown = page(ipywidgets.IntSlider(1, min=1, max=1, description="steps"))
    assert shown.values == ["1"]
    assert "disabled" in shown.slider
    assert "steps has only this value." in shown.text


def test_other_settings_are_named_unless_they_follow_and_every_frame_starts_from_them() -> None:
    follower, fixed = SLIDER(5.0, max=10, description="top"), SLIDER(0.1, description="width")
    explorer = Small(slider(), follower, fixed)
    shown = ExplorerPage(explorer.to_html())
    assert "Other settings: width 0.10." in shown.text
    assert follower.value == 5.0
    assert "Other settings: top 5.00, width 0.10." in page(slider(high=4.0), follower, fixed).text


def test_nothing_changes_and_no_observer_is_called() -> None:
    control = slider()
    explorer, calls = Small(control, SLIDER(4.0, max=10, description="top")), []
    control.observe(calls.append)
    explorer.picture.observe(calls.append)
    before = explorer.picture.value, explorer.caption.value, control.value
    assert explorer.to_html() == explorer.to_html()
    assert (explorer.picture.value, explorer.caption.value, control.value) == before
    assert list(explorer.line.get_ydata()) == [3.0, 3.0]
    assert calls == []
    control.value = 7.0  # observers work as before
    assert [change.name for change in calls] == ["value", "value"]
    assert list(explorer.line.get_ydata()) == [7.0, 7.0]


def test_an_error_in_a_frame_is_raised_and_everything_is_as_before(tmp_path: Path) -> None:
    control = slider()
    explorer, calls = Small(control), []
    control.observe(calls.append)
    explorer.error = 6.0
    (tmp_path / "old.html").write_text("old")
    with pytest.raises(ValueError, match=r"6\.0 is wrong"):
        explorer.to_html(tmp_path / "old.html")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.html", "old")]
    assert (control.value, list(explorer.line.get_ydata()), calls) == (3.0, [3.0, 3.0], [])
    assert (explorer.status.value, explorer.updates > 3) == ("", True)
    control.value = 4.0
    assert list(explorer.line.get_ydata()) == [4.0, 4.0]


def test_warnings_of_a_frame_stand_below_its_caption() -> None:
    class Warns(Small):
        def _update(self) -> str:
            if self._controls[0].value == 2.0:
                warnings.warn("2 < 3", stacklevel=1)
            return super()._update()

    captions = [stop["caption"] for stop in ExplorerPage(Warns(slider()).to_html()).stops]
    assert captions[2].endswith("<br>2 &lt; 3")
    assert "2 &lt; 3" not in captions[1]


def test_texts_are_escaped() -> None:
    nasty = '</script><b>"x"&'
    control = ipywidgets.Dropdown(options=[nasty, "b"], description=nasty)
    shown = page(control, ipywidgets.Dropdown(options=[nasty], description=nasty))
    assert shown.values == [nasty, "b"]
    assert "<b>" not in shown.text.replace(shown.text[shown.text.index('id="caption"') :], "")
    assert [tag for tag, _ in shown.tags].count("script") == 2
    explorer = ReparametrizationExplorer(np.diag([2.0, 1.0]), layers={"<i>a": 1, "b": 1})
    assert "<i>" not in explorer.caption.value


def test_a_page_loads_nothing() -> None:
    shown = page(slider())
    assert {tag for tag, attributes in shown.tags if "src" in attributes} == {"img"}
    assert "link" not in {tag for tag, _ in shown.tags}
    assert "://" not in shown.text
    assert "default-src 'none'" in shown.text


def test_fewer_frames_where_the_page_would_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = Small(slider(3.0, 0.0, 14.0), noise=1)
    complete = ExplorerPage(explorer.to_html())
    monkeypatch.setattr(_page, "MAX_BYTES", len(complete.text) // 2)
    thin = ExplorerPage(explorer.to_html())
    assert len(thin.text) <= _page.MAX_BYTES
    found = [float(text) for text in thin.values]
    assert 3 < len(found) < len(complete.values)
    assert (found[0], found[thin.start], found[-1]) == (0.0, 3.0, 14.0)
    assert len(set(np.diff(found[1:-1]))) == 1
    assert thin.image == complete.image
    monkeypatch.setattr(_page, "MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match=r"the page takes [\d,]+ bytes, more than 10,000; make the figure smaller"):
        explorer.to_html()


def test_without_webp_pictures_are_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    explorer = Small(slider())
    shown = ExplorerPage(explorer.to_html())
    assert shown.image["src"].startswith("data:image/png;base64,")
    explorer._controls[0].value = 9.0
    assert np.abs(shown.picture(9) - pixels(explorer.picture.value)).mean() < 0.5


def test_a_path_gets_the_page_and_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = Small(slider(high=4.0))
    monkeypatch.chdir(tmp_path)
    assert explorer.to_html("page.html") == Path("page.html")
    assert Path("page.html").read_text(encoding="utf-8") == explorer.to_html()
    (tmp_path / "link.html").symlink_to("page.html")
    assert explorer.to_html(tmp_path / "link.html") == tmp_path / "link.html"
    assert (tmp_path / "link.html").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "link.html"}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.html").write_text("old")

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        Small(slider()).to_html(tmp_path / "page.html")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "old")]


def test_pages_written_at_once_into_one_folder_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        """Another page is written completely between the two steps of the first."""
        monkeypatch.setattr(os, "replace", replace)
        _page.write(tmp_path / "second.html", "second")
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    _page.write(tmp_path / "first.html", "first")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "first.html": "first",
        "second.html": "second",
    }


BAD_PATHS = [
    (lambda folder: 3, TypeError, "path must be a file name, such as explorer.html, got 3 of type int"),
    (lambda folder: True, TypeError, "of type bool"),
    (lambda folder: b"page.html", TypeError, "of type bytes"),
    (lambda folder: folder / "missing" / "page.html", FileNotFoundError, "missing.* first"),
    (lambda folder: folder, IsADirectoryError, "path is a folder: .*add the name of a file"),
    (lambda folder: "", IsADirectoryError, "path is a folder"),
    (lambda folder: folder / "file" / "page.html", NotADirectoryError, "path needs an existing folder"),
    (lambda folder: "a\0b.html", OSError, "path is not a file name that this system knows"),
    (lambda folder: folder / ("a" * 300), OSError, "path is not a file name that this system knows"),
    (lambda folder: folder / "loop.html", OSError, "path is not a file name that this system knows"),
    (lambda folder: os.devnull, OSError, "path is not an ordinary file"),
    (lambda folder: folder / "locked.html", PermissionError, "path may not be written: .*choose another folder"),
]


@pytest.mark.parametrize(("make", "error", "match"), BAD_PATHS)
def test_a_bad_path_is_refused_before_anything_is_drawn(
    make: Any, error: type[Exception], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    access = os.access  # for the superuser every file may be written
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path) and access(path, mode))
    (tmp_path / "locked.html").write_text("")
    (tmp_path / "loop.html").symlink_to("loop.html")
    explorer = Small(slider())
    with pytest.raises(error, match=match):
        explorer.to_html(make(tmp_path))
    assert explorer.updates == 1


@pytest.mark.parametrize(
    ("controls", "error", "match"),
    [
        ([], ValueError, "Small has no control"),
        ([ipywidgets.Text("a")], TypeError, "must be a slider or a selection of one value, got Text"),
        ([ipywidgets.SelectMultiple(options=["a"])], TypeError, "got SelectMultiple"),
        ([ipywidgets.FloatRangeSlider()], TypeError, "got FloatRangeSlider"),
        ([ipywidgets.IntText(1)], TypeError, "got IntText"),
        ([ipywidgets.Combobox(options=["a"])], TypeError, "got Combobox"),
        ([ipywidgets.Dropdown(options=["a", "b"], value=None)], ValueError, "none is selected"),
        ([ipywidgets.Dropdown(options=[])], ValueError, "none is selected"),
        ([SLIDER(1.0, max=np.inf)], ValueError, "a finite value and range"),
        ([SLIDER(np.nan)], ValueError, "the value of a slider must be finite, got nan"),
    ],
)
def test_an_explorer_without_a_slider_has_no_page(controls: list[Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Small(*controls).to_html()


def test_a_selection_that_shows_its_first_value_has_a_page() -> None:
    options = [("low", 1.0), ("high", 2.0)]
    chosen = ipywidgets.SelectionSlider(options=options, value=1.0)  # has no label until another value is chosen
    assert ExplorerPage(Small(chosen).to_html()).values == ["low", "high"]
    assert chosen.value == 1.0
