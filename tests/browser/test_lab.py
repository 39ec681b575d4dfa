"""The lessons as their user meets them: copied by ``kmemlab lab``, opened in a real JupyterLab, run, answered."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kmemlab_widgets.theme import LIGHT

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parent.parent.parent
LESSONS = sorted(path.name for path in (ROOT / "lessons").glob("[0-9]*.ipynb"))
TOKEN = "kmemlab-test"
SHOTS = Path(os.environ["KMEMLAB_SHOTS"]) if "KMEMLAB_SHOTS" in os.environ else None


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A JupyterLab on loopback, started with the project's own command; gives its address."""
    home = tmp_path_factory.mktemp("lab")
    port = _free_port()
    env = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
    }
    env.pop("KMEMLAB_PROGRESS", None)  # a learner's progress file is written here
    command = [sys.executable, "-m", "kmemlab.cli", "lab", str(home / "lessons"), "--no-browser", f"--port={port}"]
    log = (home / "lab.log").open("w")
    server = subprocess.Popen(
        [*command, f"--IdentityProvider.token={TOKEN}"], env=env, stdout=log, stderr=subprocess.STDOUT, cwd=home
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=2)
                break
            assert server.poll() is None, (home / "lab.log").read_text()
            time.sleep(0.25)
        told = (home / "lab.log").read_text()
        assert "kmemlab.jupyter.nodelay | extension was successfully loaded" in told, told
        yield address
    finally:
        server.terminate()
        server.wait(20)
        log.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page as wide as a laptop's."""
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


def open_lesson(page: Any, lab: str, name: str) -> None:
    """Open a lesson in a fresh workspace and wait until its kernel is idle: an earlier Run All would be lost."""
    page.goto(f"{lab}/lab/workspaces/{name.split('.', maxsplit=1)[0]}/tree/{name}?reset&token={TOKEN}")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    page.wait_for_selector("text=/\\(ipykernel\\) \\| Idle/")


def run_all(page: Any) -> None:
    """Run All, and wait until the last code cell has a number and none is running."""
    page.click("text=Run >> nth=0")
    page.click("[data-command='runmenu:run-all']")
    page.wait_for_function(
        """() => {
          const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.textContent);
          return prompts.length > 0 && prompts.every(text => /^\\[\\d+\\]:$/.test(text));
        }""",
        timeout=120_000,
    )


def shot(page: Any, name: str) -> None:
    """Keep a picture to look at, when asked for."""
    if SHOTS:
        page.screenshot(path=SHOTS / f"{name}.png")


@pytest.mark.parametrize("name", LESSONS)
def test_run_all(page: Any, lab: str, name: str) -> None:
    """Every lesson runs from top to bottom: no error, no broken widget, every panel drawn."""
    open_lesson(page, lab, name)
    run_all(page)
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert page.locator(".jp-RenderedText[data-mime-type*='stderr']").count() == 0
    assert page.locator("text=Error displaying widget").count() == 0
    assert page.locator(".kml-predict").count() >= 3
    shot(page, name)


def test_answer_by_clicking(page: Any, lab: str) -> None:
    """A wrong answer gets its own reason and does not reveal the right one; the right one is confirmed."""
    open_lesson(page, lab, "00_start.ipynb")
    run_all(page)
    card = page.locator(".kml-predict").first
    card.scroll_into_view_if_needed()
    card.locator(".kml-option").nth(0).click()
    card.locator(".kml-check").click()
    page.wait_for_function("document.querySelector('.kml-predict .kml-feedback').textContent.length > 20")
    assert "Free memory is not just a number" in card.locator(".kml-feedback").inner_text()
    assert card.locator(".kml-option[data-state='right']").count() == 0
    shot(page, "predict-wrong")
    card.locator(".kml-option").nth(3).click()
    card.locator(".kml-check").click()
    card.locator(".kml-option[data-state='right']").wait_for()
    shot(page, "predict-right")


def test_answer_by_keyboard(page: Any, lab: str) -> None:
    """Arrows choose, Enter checks, and JupyterLab does not take the keys for its cells."""
    open_lesson(page, lab, "00_start.ipynb")
    run_all(page)
    card = page.locator(".kml-predict").nth(1)
    card.scroll_into_view_if_needed()
    cells = page.locator(".jp-Cell").count()
    card.locator("input[type=radio]").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    card.locator(".kml-option[data-state='right']").wait_for()
    assert page.locator(".jp-Cell").count() == cells


def test_the_map_is_painted_and_follows(page: Any, lab: str) -> None:
    """The maps have the theme's colours, and the first one tells of the machine's last call."""
    open_lesson(page, lab, "00_start.ipynb")
    run_all(page)
    maps = page.locator("canvas.map")
    assert maps.count() == 2
    for i in range(2):
        maps.nth(i).scroll_into_view_if_needed()
        colours = maps.nth(i).evaluate(
            """canvas => [...new Set(new Uint32Array(
              canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer))]"""
        )
        for token in ("paper", "free", "unmov"):
            red, green, blue = bytes.fromhex(LIGHT[token][1:])
            assert 0xFF000000 | blue << 16 | green << 8 | red in colours, token
    heads = page.locator(".kml-zonemap .head").all_inner_texts()
    assert heads[0].startswith("alloc_pages(GFP_DMA|__GFP_NOWARN, 4) = pfn 480")
    assert "= NULL" in heads[1]


# What a learner types: the number of the option (arrows from the first), those to tick, or the text of each box.
KEYS = {
    "00_start.ipynb": [3, 1, "3808", 1, 3, 1],
    "01_flags.ipynb": [
        3, {2, 3, 4, 5, 6, 7},
        ["with interrupts", "an interrupt", "holds", "inside", "with bottom", "a timer"],
        {0, 2, 4, 5}, {1}, "13", 1, 2, 1, 2, 1, 2, 1, ["at order 4", "at orders", "at orders", "never"], 2, 1, 1, 1,
        "0.9",
    ],
    "02_size_classes.ipynb": [
        2, 2, 0, ["8", "96", "128", "192", "256", "8192"], 2, "25", "2.1", ["same", "moved", "same"], 2, 2, {1, 2},
        ["46", "22", "0"],
    ],
    "03_lookaside_caches.ipynb": [
        "43.8", 2, 2, 1, ["56", "32"], ["0", "15", "15", "30", "30", "30", "45"], ["2", "1", "4"], 1, ["12", "6", "8"],
        "51", "0", "55", 3, {0, 5}, 2, ["stop", "report"], 3,
    ],
    "03b_slab_detectives.ipynb": [
        0, ["2", "100"], 1, 1, 2, 0, "8", "6", ["no", "no", "no", "yes", "yes", "yes", "no"], 0, 1,
    ],
    "04_mempools.ipynb": [
        3, "4", 1, ["3", "2", "1", "0", "1"], ["NULL", "NULL", "sleeps"], ["the reserve", "the allocator"], 1, 2, 2,
        "9", 1, ["1000", "250", "250"], 1, 2, ["6", "2", "0", "2"], 2, 2, "16000",
    ],
    "05_pages.ipynb": [
        "238", "3", 0, 1, "256", "42", 1, "3", ["5", "64"], 1, 3, "156", 1, "13", 1, 1, 0, 0,
    ],
}  # fmt: skip


def focused_card(page: Any) -> int:
    """Which question holds the focus, -1 if none does."""
    return page.evaluate(
        "[...document.querySelectorAll('.kml-predict')].indexOf(document.activeElement.closest('.kml-predict'))"
    )


@pytest.mark.parametrize("name", KEYS)
def test_every_prediction_by_keyboard_alone(page: Any, lab: str, name: str) -> None:
    """Arrows walk the cells, Tab enters the card, arrows or digits answer, Enter checks, Escape leaves: no mouse."""
    open_lesson(page, lab, name)
    run_all(page)
    answers = KEYS[name]
    cards = page.locator(".kml-predict")
    assert cards.count() == len(answers)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Home")
    for index, answer in enumerate(answers):
        cell = page.evaluate(
            "i => [...document.querySelectorAll('.jp-Notebook .jp-Cell')]"
            ".indexOf(document.querySelectorAll('.kml-predict')[i].closest('.jp-Cell'))",
            index,
        )
        for _ in range(200):
            here = page.evaluate(
                "[...document.querySelectorAll('.jp-Notebook .jp-Cell')]"
                ".findIndex(cell => cell.classList.contains('jp-mod-active'))"
            )
            if here == cell:
                break
            page.keyboard.press("ArrowDown" if here < cell else "ArrowUp")
        assert here == cell
        for _ in range(40):
            if focused_card(page) == index:
                break
            page.keyboard.press("Tab")
        assert focused_card(page) == index, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        if isinstance(answer, set):
            for option in range(max(answer) + 1):
                if option:
                    page.keyboard.press("Tab")
                if option in answer:
                    page.keyboard.press("Space")
        elif isinstance(answer, int):
            page.keyboard.press("Space")
            for _ in range(answer):
                page.keyboard.press("ArrowDown")
        else:
            for nth, text in enumerate(answer if isinstance(answer, list) else [answer]):
                if nth:
                    page.keyboard.press("Tab")
                page.keyboard.type(text)
        if page.evaluate("document.activeElement.tagName") == "SELECT":
            page.keyboard.press("Tab")  # Enter would open its list: on to the button
        page.keyboard.press("Enter")
        cards.nth(index).locator(".kml-check").wait_for(state="detached")  # right: there is nothing left to check
        assert len(cards.nth(index).locator(".kml-feedback").inner_text()) > 5
        page.keyboard.press("Escape")
    strip = page.locator(".kml-strip").last.inner_text()
    assert strip.count("✓") == len(answers), strip
    shot(page, f"keyboard-{name}")


def saved_pictures(name: str) -> list[str]:
    """The words beside each picture that the committed notebook holds."""
    cells = json.loads((ROOT / "lessons" / name).read_text(encoding="utf-8"))["cells"]
    texts = ["".join(o.get("data", {}).get("text/html", "")) for c in cells for o in c.get("outputs", ())]
    return [html.unescape(alt) for text in texts for alt in re.findall(r'<img alt="([^"]*)" src="data:image/svg', text)]


@pytest.mark.parametrize("name", LESSONS)
def test_an_untrusted_reader_sees_the_saved_pictures(page: Any, lab: str, name: str) -> None:
    """The file as it is committed, opened and not run: JupyterLab does not trust it, and shows each picture with its
    words; nothing asks for a kernel's widget."""
    open_lesson(page, lab, name)
    page.locator("[title*='not trusted' i], [aria-label*='not trusted' i]").first.wait_for(state="attached")
    found = page.locator(".jp-OutputArea-output img[src^='data:image/svg']")
    words = saved_pictures(name)
    assert len(words) >= 4
    assert found.count() == len(words)
    for i, alt in enumerate(words):
        picture = found.nth(i)
        picture.scroll_into_view_if_needed()
        assert picture.get_attribute("alt") == alt
        width, colours = picture.evaluate(
            """async image => { await image.decode();
              const canvas = Object.assign(document.createElement("canvas"),
                { width: image.naturalWidth, height: image.naturalHeight });
              const pen = canvas.getContext("2d"); pen.drawImage(image, 0, 0);
              const data = pen.getImageData(0, 0, canvas.width, canvas.height).data;
              return [image.naturalWidth, [...new Set(new Uint32Array(data.buffer))]]; }"""
        )
        assert width == 868
        for token in ("paper", "ink"):
            red, green, blue = bytes.fromhex(LIGHT[token][1:])
            assert 0xFF000000 | blue << 16 | green << 8 | red in colours, (token, alt[:60])
    assert page.locator("text=Error displaying widget").count() == 0
    shot(page, f"untrusted-{name}")


def test_panels_keep_their_keys(page: Any, lab: str) -> None:
    """With the focus in a panel JupyterLab does not take B (a cell below), A, J or the arrows for its cells."""
    open_lesson(page, lab, "05_pages.ipynb")
    run_all(page)
    cells = page.locator(".jp-Notebook .jp-Cell")
    before = cells.count()
    for part in ("canvas.map", ".kml-freelists .stage", ".kml-orderslider .range"):
        inside = page.locator(part).first
        inside.scroll_into_view_if_needed()
        inside.focus()
        for key in ("b", "a", "j", "ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
        assert inside.evaluate("node => node === document.activeElement"), part
        assert cells.count() == before, part
