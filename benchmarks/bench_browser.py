"""What a learner feels, in a real JupyterLab in Chromium: ``make bench``.

From a key on a slider to the changed picture, over 100 moves: a slider whose callback calls the kernel's functions
while a map of 65,536 pages follows, another one while Watermarks follows with a long curve; the sliders of OrderSlider
and SizeClasses; N on a SlabView of 63 slabs; a bit of FlagPicker; a step of MempoolGauge; a report pasted
into Dmesg. Then a film of 240 moments on the map, and how much memory a lesson's kernel takes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from playwright.sync_api import sync_playwright

from kmemlab.cli import JUPYTER

MOVES = 100
TOKEN = "kmemlab-bench"
CELLS = (
    """
import ipywidgets
from kmemlab import GFP_KERNEL, Machine
from kmemlab_widgets import OrderSlider, ZoneMap
from kmemlab_widgets.panel import refresh_all

m = Machine.from_recording("256M-a-21")
held = []


def moved(change):
    if len(held) > 8 and change.new % 2:
        page, order = held.pop(0)
        m.__free_pages(page, order)
    else:
        held.append((m.alloc_pages(GFP_KERNEL, change.new % 6), change.new % 6))
    refresh_all(m)


slider = ipywidgets.IntSlider(value=0, min=0, max=100_000)
slider.observe(moved, "value")
ipywidgets.VBox([slider, ZoneMap(m)])
""",
    'ZoneMap.replay("256M-a-21", frames=240)',
    "OrderSlider(Machine.from_recording('256M-a-21'))",
    "from kmemlab_widgets import SizeClasses\nSizeClasses(size=100)",
    """
from kmemlab_widgets import SlabView

slabs = Machine("linux-6.1", cmdline="slab_nomerge")
c = slabs.kmem_cache_create("bench", 256, 0, 0, None)
objects = [slabs.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(1000)]
for p in objects[::2]:
    slabs.kmem_cache_free(c, p)
SlabView(slabs, c)
""",
    """
from kmemlab_widgets import Dmesg, FlagPicker, Watermarks

full = Machine("linux-6.1", memory="64M")
full.read_file("backup.tar", "64M")
marks = Watermarks(full)
for _ in range(1750):
    full.alloc_pages(GFP_KERNEL, 0)


def one_more(change):
    full.alloc_pages(GFP_KERNEL, 0)
    refresh_all(full)


asker = ipywidgets.IntSlider(value=0, min=0, max=100_000)
asker.observe(one_more, "value")
ipywidgets.VBox([asker, marks])
""",
    "FlagPicker(GFP_KERNEL)",
    """
from kmemlab_widgets import MempoolGauge

MempoolGauge("mempool")
""",
    """
failed = Machine("linux-6.1", memory="64M")
while failed.alloc_pages(0x820, 10):
    pass
Dmesg(failed)
""",
)
MEMORY = """
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])


bare = resident()
from kmemlab import Machine
from kmemlab_widgets import FreeLists, Lesson, OrderSlider, RequestPath, ZoneMap
m = Machine.from_recording("256M-a-21")
panels = [ZoneMap(m), FreeLists(m), RequestPath(m), OrderSlider(m)]
print(bare, resident())
"""


def key(where: str, name: str) -> str:
    """A key pressed on the first node that ``where`` selects."""
    return (
        f"document.querySelector({where!r})"
        f".dispatchEvent(new KeyboardEvent('keydown', {{key: '{name}', bubbles: true}}))"
    )


OWN = (
    "const r = document.querySelector('.kml-orderslider .range'); r.value = (Number(r.value) + 1) % 11;"
    "r.dispatchEvent(new Event('input', {bubbles: true}))"
)
# The second slider of ipywidgets stands above Watermarks.
ASK = key(".noUi-handle", "Right").replace("querySelector('.noUi-handle')", "querySelectorAll('.noUi-handle')[1]")
ARROWS = "window.n = (window.n ?? 0) + 1;" + key(".kml-watermarks .said", "Home").replace(
    "'Home'", "window.n % 2 ? 'Home' : 'End'"
)
STEP = (
    "const s = document.querySelector('.kml-steps input[type=range]'); s.value = (Number(s.value) + 1) % 16;"
    "s.dispatchEvent(new Event('input', {bubbles: true}))"
)
PASTE = (  # another text each time: nothing is sent for the same one
    "window.n = (window.n ?? 0) + 1; const text = document.querySelector('.kml-dmesg textarea');"
    "text.value = window.report + '\\n.'.repeat(window.n % 2);"
    "document.querySelector('.kml-dmesg .form button').click()"
)
# What is pressed, and the part of the page that changes. Sliders of ipywidgets are moved by keys, as a learner does.
PRESSES = (
    ("slider -> call -> map of 65,536 pages", key(".noUi-handle", "Right"), ".kml-zonemap .head"),
    ("slider -> call -> Watermarks, 1,750 samples and more", ASK, ".kml-watermarks"),
    ("OrderSlider's own slider", OWN, ".kml-orderslider .head"),
    ("SizeClasses's slider", OWN.replace("orderslider", "sizeclasses").replace("% 11", "% 1000"),
     ".kml-sizeclasses .head"),
    ("N on SlabView, 63 slabs", key(".kml-slabview .picture", "n"), ".kml-slabview .picture.wide"),
    ("arrow key on Watermarks", ARROWS, ".kml-watermarks .said"),
    ("FlagPicker: a bit is ticked", "document.querySelector('.kml-flagpicker input[type=checkbox]').click()",
     ".kml-flagpicker .mode"),
    ("MempoolGauge: a step", STEP, ".kml-steps .said"),
    ("Dmesg: a failure report is pasted", PASTE, ".kml-dmesg .log"),
)  # fmt: skip
# Presses a key and waits for the next change of the part named, without the screen's own refresh; milliseconds.
# The map writes its headline and paints its canvas in one task, before anybody is told of the change.
TIMED = """([part, kind]) => new Promise((resolve) => {
  const node = document.querySelector(part);
  const begin = performance.now();
  const watch = new MutationObserver(() => {
    watch.disconnect();
    resolve(performance.now() - begin);
  });
  watch.observe(node, { childList: true, characterData: true, subtree: true, attributes: true });
  setTimeout(() => resolve(-1), 3000);
  window.press(kind);
})"""


@contextlib.contextmanager
def lab(home: Path) -> Iterator[str]:
    """A JupyterLab on loopback that serves ``home``."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = int(s.getsockname()[1])
    env = os.environ | {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    log = (home / "lab.log").open("w")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    server = subprocess.Popen(
        [*command, f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home}"],
        env=env, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=2)
                break
            time.sleep(0.25)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


def show(name: str, took: list[float], bar: str) -> None:
    """Median and p95 of milliseconds."""
    took.sort()
    print(
        f"{name}: median {statistics.median(took):.1f} ms, p95 {took[int(len(took) * 0.95) - 1]:.1f} ms "
        f"over {len(took)} moves ({bar})"
    )


def moves(page: Any, press: str, part: str) -> list[float]:
    """Milliseconds from a slider's change to the changed part."""
    page.evaluate(f"window.press = () => {{ {press} }}")
    took = []
    for _ in range(MOVES + 5):
        ms = page.evaluate(TIMED, [part, ""])
        assert ms >= 0, f"{part} did not change"
        took.append(ms)
        page.wait_for_timeout(60)  # until the kernel is idle: the widgets hold the next message back that long
    return took[5:]


def drive(page: Any, address: str) -> None:
    """Open the notebook, run it, measure."""
    page.goto(f"{address}/lab/tree/bench.ipynb?reset&token={TOKEN}")
    page.wait_for_selector("text=/\\(ipykernel\\) \\| Idle/")
    page.click("text=Run >> nth=0")
    page.click("[data-command='runmenu:run-all']")
    page.wait_for_selector(".kml-orderslider .pick")
    page.wait_for_selector(".kml-dmesg .row.says")
    page.evaluate(
        "window.report = [...document.querySelectorAll('.kml-dmesg .text')].map(n => n.textContent).join('\\n')"
    )
    for name, press, part in PRESSES:
        show(name, moves(page, press, part), "bar: 25 and 50 ms")
    film = page.locator(".kml-zonemap").nth(1)
    film.scroll_into_view_if_needed()
    scrub = film.locator(".time input")
    last = int(scrub.get_attribute("max"))
    scrub.evaluate("node => { node.value = 0; node.dispatchEvent(new Event('input', {bubbles: true})); }")
    page.wait_for_timeout(1500)  # the film comes
    seconds, drawn = film.evaluate(
        """(root) => new Promise((resolve) => {
          const scrub = root.querySelector(".time input"), seen = new Set([scrub.value]);
          const begin = performance.now();
          const look = () => {
            seen.add(scrub.value);
            if (scrub.value === scrub.max || performance.now() - begin > 30000)
              resolve([(performance.now() - begin) / 1000, seen.size]);
            else requestAnimationFrame(look);
          };
          root.querySelector(".time .play").click();
          look();
        })"""
    )
    print(
        f"film on the map: {last} moments in {seconds:.2f} s, {last / seconds:.1f} a second, {drawn} of {last + 1} seen"
    )


def main() -> None:
    """Run all measurements."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text.strip()) for text in CELLS])
        book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        nbformat.write(book, home / "bench.ipynb")
        with lab(home) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1360, "height": 1200})
            page.set_default_timeout(60_000)
            drive(page, address)
            browser.close()
    os.environ["JUPYTER_PATH"] = str(JUPYTER)  # the kernel that ``kmemlab lab`` starts
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(MEMORY.strip())])
    NotebookClient(book, timeout=60, kernel_name="python3").execute()
    bare, full = (int(word) / 1024 for word in book.cells[0].outputs[-1]["text"].split())
    print(
        f"a lesson's kernel without matplotlib: {full:.1f} MiB resident (bar: 60), of which {bare:.1f} are the bare "
        f"kernel, {full - bare:.1f} the machine and four panels"
    )


if __name__ == "__main__":
    main()
