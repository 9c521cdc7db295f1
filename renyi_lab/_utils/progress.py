"""One progress bar for the whole package."""

from __future__ import annotations

import os
import sys
from typing import Any

from renyi_lab._utils.standard_streams import ForgivingStream, is_open, is_terminal
from renyi_lab._utils.validation import check_flag

_QUIET_ENVIRONMENTS = ("CI", "PYTEST_VERSION")
_SECONDS_BEFORE_SHOWN = 1.0  # Heuristic: shorter work needs no bar.


def progress_wanted() -> bool:
    """Whether the process runs in a terminal or notebook, and not under CI or pytest."""
    if any(os.environ.get(name) for name in _QUIET_ENVIRONMENTS):
        return False
    return is_terminal(sys.stderr) or "ipykernel" in sys.modules


def progress_bar(total: int | None, description: str, show: bool | None = None) -> Any:
    """A ``tqdm`` bar; ``show=None`` decides by `progress_wanted`, ``True``/``False`` force it.

    Where standard error is missing or closed, as under ``pythonw`` or in a service, there is none, and one that fails
    to write, as into a pipe that nobody reads, is silent.
    """
    from tqdm.auto import tqdm  # in a notebook it loads ipywidgets, which would slow down `import renyi_lab`

    wanted = progress_wanted() if show is None else check_flag("progress", show)
    visible = is_open(sys.stderr) and wanted
    return tqdm(
        total=total,
        desc=description,
        disable=not visible,
        delay=_SECONDS_BEFORE_SHOWN,
        leave=False,
        dynamic_ncols=True,
        file=ForgivingStream(sys.stderr),
    )
