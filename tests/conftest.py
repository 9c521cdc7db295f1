"""Tests that need a GPU or a browser are skipped without one, with the reason."""

from __future__ import annotations

import importlib.util
import os

# The tests' matrices are small: threads would only wait for each other, on a busy machine a hundred times longer than
# the work takes. NumPy reads the variable when it is imported, and the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from lab_in_browser import CHROMIUM_NAMES, chromium

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("browser"):
        missing = None
        if importlib.util.find_spec("playwright") is None:
            missing = "needs Playwright (pip install playwright)"
        elif chromium() is None:
            missing = f"needs one of {', '.join(CHROMIUM_NAMES)} on the PATH"
        if missing and os.environ.get("BROWSER_TESTS") == "required":  # .ci/run: skipping would hide a failure
            pytest.fail(missing)
        if missing:
            pytest.skip(missing)
