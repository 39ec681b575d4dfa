"""What all tests share: no progress file is read or written, and a browser test never passes by not running in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["KMEMLAB_PROGRESS"] = "none"  # inherited by the kernels that nbval starts

CHROMIUM = Path(os.environ.get("KMEMLAB_CHROMIUM", "/usr/bin/chromium"))
ROOT = Path(__file__).resolve().parent.parent


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without Chromium a browser test is skipped at home and fails in CI."""
    if item.get_closest_marker("browser") and not CHROMIUM.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{CHROMIUM} is missing, and CI must not skip the browser tests", pytrace=False)
        pytest.skip(f"{CHROMIUM} is missing")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the browser, for Playwright's ``executable_path``."""
    return str(CHROMIUM)


_ARGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    """One Chromium for all browser tests of a worker: two Playwrights in one process do not get along."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGS)
        yield browser
        browser.close()
