"""Tests that need a GPU or a browser are skipped without one, with the reason."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from lab_in_browser import CHROMIUM_NAMES, chromium

# The matrices of the tests are small: threads would mostly wait for each other, on a busy machine a hundred times as
# long as they compute. The variable also applies to processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
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
