"""Progress bars, and what prints, in processes without a usable standard stream."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from renyi_lab._utils import progress
from renyi_lab._utils.progress import progress_bar, progress_wanted


class OnlyWrites:
    """As the objects that some programs put in place of the standard streams."""

    def write(self, text: str) -> int:
        return len(text)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def closed(stream: Any) -> Any:
    stream.close()
    return stream


@pytest.fixture(autouse=True)
def in_an_ordinary_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in progress._QUIET_ENVIRONMENTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(progress, "_SECONDS_BEFORE_SHOWN", 0.0)


@pytest.mark.parametrize("show", [None, True, False])
@pytest.mark.parametrize("make", [lambda: None, lambda: closed(io.StringIO()), lambda: closed(Terminal()), OnlyWrites])
def test_without_a_usable_standard_error_work_goes_on(
    make: Any, show: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", make())
    assert not progress_wanted()
    with progress_bar(3, "work", show) as bar:
        for _ in range(3):
            bar.set_postfix(loss="0.1", refresh=False)
            bar.update()


def test_a_terminal_shows_the_bar_and_one_that_closes_meanwhile_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert progress_wanted()
    with progress_bar(3, "work") as bar:
        bar.update()
        bar.refresh()
        assert "work" in terminal.getvalue()
        terminal.close()
        bar.update()
        bar.refresh()


class Fails:
    """A stream all of whose uses fail, and whose state cannot be asked for."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class FailsToWrite(Terminal):
    def write(self, text: str) -> int:
        raise OSError("nobody reads this pipe")

    def flush(self) -> None:
        raise OSError("nobody reads this pipe")


def detached() -> io.TextIOWrapper:
    stream = io.TextIOWrapper(io.BytesIO())
    stream.detach()
    return stream


@pytest.mark.parametrize("name", ["stderr", "stdout"])
@pytest.mark.parametrize("make", [FailsToWrite, detached, io.BytesIO, lambda: 3])
def test_a_stream_that_fails_ends_no_work(make: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, name, make())
        progress_wanted()
        with progress_bar(3, "work", True) as bar:
            bar.update()
            bar.refresh()


def test_a_stream_that_cannot_be_asked_anything_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Fails())
    with progress_bar(3, "work", True) as bar:
        bar.update()
    assert not progress_wanted()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_bar_spells_out_what_the_stream_cannot_encode(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding=encoding, write_through=True))
    with progress_bar(3, "entropy of order α", True) as bar:
        bar.refresh()
    assert b"entropy of order alpha" in written.getvalue()
