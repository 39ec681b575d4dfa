"""A browser test never passes by not running: skipped at home, failed in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("ci", "browser", "outcome"),
    [("", "missing", "1 skipped"), ("true", "missing", "1 error"), ("true", "there", "1 passed")],
)
def test_a_missing_browser(ci: str, browser: str, outcome: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = browser\n")
    (tmp_path / "test_it.py").write_text("import pytest\n\n@pytest.mark.browser\ndef test_it():\n    pass\n")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"CI": ci, "KMEMLAB_CHROMIUM": str(tmp_path / browser), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome in result.stdout
    assert ("CI must not skip" in result.stdout) == (outcome == "1 error")
