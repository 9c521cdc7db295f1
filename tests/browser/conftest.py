"""The browser that all tests of this folder drive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_in_browser import chromium

# No background traffic of Chromium; the tests need no network.
FLAGS = ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright  # the conftest.py above skips these tests if it is missing

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        browser.close()
