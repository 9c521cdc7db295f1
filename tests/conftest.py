"""Tests that need hardware or programs that are not everywhere skip themselves, with the reason."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from lab_in_browser import CHROMIUM_NAMES, chromium

# The tests' matrices are small: threads would only wait for each other, on a busy machine a hundred times longer than
# the work takes. The variable reaches the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("browser"):
        lacking = None
        if importlib.util.find_spec("playwright") is None:
            lacking = "needs Playwright (pip install playwright)"
        elif chromium() is None:
            lacking = f"needs one of {', '.join(CHROMIUM_NAMES)} on the PATH"
        if lacking and os.environ.get("BROWSER_TESTS") == "required":  # .ci/run: a skipped test would prove nothing
            pytest.fail(lacking)
        if lacking:
            pytest.skip(lacking)
