"""A browser for all browser tests, and a page that shows one panel with a stand-in for its Python half."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kmemlab import GFP_DMA, Machine
from kmemlab_widgets.zonemap import ZoneMap
from tests.browser.map_page import HOOKED, in_text

STATIC = Path(__file__).resolve().parent.parent.parent / "widgets" / "kmemlab_widgets" / "static"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing: the tests do."""


@pytest.fixture(scope="session")
def static_files() -> Iterator[str]:
    """The panels' static files, served on loopback: an ES module cannot be loaded from a file."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(STATIC)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


PAGE = """<!doctype html><meta charset="utf-8"><title>panel</title><style>%(css)s body{margin:8px}
body[data-jp-theme-light="false"]{background:#111}</style>
<body data-jp-theme-light="%(light)s"><script type="module">
import panel from "./module.js";
const state = %(state)s, heard = {};
const bytes = text => new DataView(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
for (const name of %(binary)s) state[name] = bytes(state[name]);
window.sent = []; window.outside = [];
document.body.addEventListener("keydown", event => window.outside.push(event.key));
window.model = {
  get: name => state[name],
  set: (name, value) => { state[name] = value; (heard["change:" + name] ?? []).forEach(f => f()); },
  on: (name, f) => (heard[name] ??= []).push(f), off: () => {}, save_changes: () => {}, send: m => window.sent.push(m),
};
// Like JupyterLab: the panel is rendered first and put into the page later.
const root = Object.assign(document.createElement("div"), { id: "root", style: "width:%(width)dpx" });
panel.render({ model: window.model, el: root });
await new Promise(resolve => setTimeout(resolve, 50));
document.body.append(root);
await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve, 50)));
window.ready = true;
</script></body>"""


@pytest.fixture
def show(browser: Any, static_files: str) -> Iterator[Callable[..., Any]]:
    """``show(module, css, state, width=868, light=True)`` opens a page with a panel's ES module (its text) alone."""
    contexts = []

    def open_page(
        module: str,
        css: str,
        state: dict[str, Any],
        *,
        binary: tuple[str, ...] = (),
        width: int = 868,
        light: bool = True,
    ) -> Any:
        context = browser.new_context(viewport={"width": width + 40, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        text = PAGE % {
            "css": css,
            "light": str(light).lower(),
            "width": width,
            "state": json.dumps(state),
            "binary": json.dumps(binary),
        }
        page.route("**/panel.html", lambda route: route.fulfill(body=text, content_type="text/html"))
        page.route("**/module.js", lambda route: route.fulfill(body=module, content_type="text/javascript"))
        page.goto(f"{static_files}/panel.html")
        page.wait_for_function("window.ready")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def panel() -> ZoneMap:
    """The yard after one request: 16 pages from frame 288 on are taken, cut from an order-5 block."""
    m = Machine.from_recording("256M-a-21")
    m.alloc_pages(GFP_DMA, 4)
    return ZoneMap(m, zone="DMA")


@pytest.fixture
def open_map(show: Callable[..., Any], panel: ZoneMap) -> Callable[..., Any]:
    """``open_map(panel=this one, width=868, light=True)``: the map in a page."""

    def open_page(shown: ZoneMap = panel, **kwargs: Any) -> Any:
        state = {"cells": in_text(shown.cells), "orders": in_text(shown.orders), "meta": shown.meta, "frame": 1}
        return show(HOOKED, ZoneMap._css, state, binary=("cells", "orders"), **kwargs)

    return open_page
