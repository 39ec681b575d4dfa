"""The cards in a real browser with a fake model: by keyboard alone, in both widths and both themes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kmemlab_widgets import cards
from kmemlab_widgets.cards import Card, Exercise, Predict
from kmemlab_widgets.questions import PASS, Box, BoxesQuestion, Check, Choice, ExerciseSpec, Question, fail
from kmemlab_widgets.theme import contrast

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><meta charset="utf-8"><style>%s</style>
<body data-jp-theme-light="%s" style="font-family: 'DejaVu Sans'"><div id="host" style="width:%dpx"></div>
<script type="module">
const mod = await import(URL.createObjectURL(new Blob([%s], {type: "text/javascript"})));
const state = %s, calls = {};
window.outer = 0;
document.addEventListener("keydown", () => window.outer++);
const model = {get: (key) => state[key], on: (name, fn) => (calls[name] ??= []).push(fn), off() {},
  send: (message) => window.python(JSON.stringify(message)).then((answer) => {
    for (const [key, value] of Object.entries(answer)) {
      state[key] = value; (calls["change:" + key] ?? []).forEach((fn) => fn());
    }
    window.settled = (window.settled ?? 0) + 1;
  })};
mod.default.render({model, el: document.getElementById("host")});
window.settled = 0;
</script>"""

STRIP = {
    "title": "Lesson 1",
    "cells": [
        {"label": "1", "text": "✓ 1", "words": "right", "state": "ok", "current": False},
        {"label": "2", "text": "✓ 2 ·2nd", "words": "right at the 2nd try", "state": "late", "current": False},
        {"label": "3", "text": "3", "words": "open", "state": "", "current": True},
    ],
    "exercises": [{"label": "A", "text": "A", "words": "open", "state": "", "current": False}],
    "note": "",
}


class Stage:
    """One card on a page, and Python at the other end of the wire."""

    def __init__(self, browser: Any, card: Card, width: int = 868, dark: bool = False) -> None:
        self.card = card
        self.sent: list[Any] = []
        self.page = browser.new_page(viewport={"width": width + 30, "height": 900})
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.expose_function("python", self.answer)
        code = json.dumps((cards._STATIC / "cards.js").read_text(encoding="utf-8"))
        state = json.dumps({"view": card.view, "strip": STRIP})
        light = "false" if dark else "true"
        self.page.set_content(PAGE % (card._css, light, width, code, state))
        self.page.wait_for_function("window.settled === 0")

    def answer(self, message: str) -> Any:
        self.sent.append(json.loads(message))
        self.card._on_message(self.card, self.sent[-1], [])
        return {"view": self.card.view, "strip": STRIP}

    def press(self, *keys: str) -> None:
        """Press keys; what goes to Python is awaited."""
        for key in keys:
            before = len(self.sent)
            self.page.keyboard.press(key)
            self.page.wait_for_timeout(30)
            if len(self.sent) > before:
                self.page.wait_for_function(f"window.settled === {len(self.sent)}")

    @property
    def focus(self) -> str:
        return str(self.page.evaluate("document.activeElement.className + ' ' + (document.activeElement.value ?? '')"))


def question(m: Any, seed: int) -> Question:
    return Question(
        ask="DMA32 has 148 pages free, DMA has 192. What does <this> return?",
        code="alloc_pages(GFP_ATOMIC, 0)",
        choices=[
            Choice("dma32", "a page from `DMA32`", "Too few."),
            Choice("dma", "a page from DMA", "DMA keeps 179 pages back.\n192 is not above 192."),
            Choice("null", "NULL <b>", "no"),
        ],
        answer="null",
        right="148 <= 155.",
    )


def table(m: Any, seed: int) -> BoxesQuestion:
    boxes = [
        Box(label="calls", answer=3, otherwise="Count again."),
        Box(label="GFP_KERNEL", options=("NULL", "sleeps"), answer="sleeps", wrong={"NULL": "It may wait."}),
    ]
    return BoxesQuestion(ask="Who sleeps?", boxes=boxes)


def exercise() -> Exercise:
    spec = ExerciseSpec(
        letter="B",
        title="refill",
        task="Write `refill(m, pool, n)`.",
        signature="def refill(m, pool, n)",
        starter="",
        hints=["First.", "Second."],
        checks=[
            Check("plenty of memory", lambda fn: PASS, "seed 1, 256 MiB"),
            Check("from a timer", lambda fn: fail("It may sleep.", "BUG: sleeping function called"), "seed 3, 256 MiB"),
        ],
    )

    def refill() -> None:
        print("hi")

    return Exercise(spec, refill)


def test_by_keyboard_alone(browser: Any) -> None:
    """Tab, arrows, Enter; the feedback takes the focus; the notebook outside hears no plain key."""
    stage = Stage(browser, Predict(question))
    stage.press("Tab", "ArrowDown")
    assert stage.focus == "kml-radio dma"
    stage.press("Enter")
    assert stage.sent == [{"do": "check", "given": ["dma"]}]
    assert stage.focus.strip() == "kml-feedback"
    assert stage.page.locator(".kml-feedback[role=status]").inner_text() == (
        "DMA keeps 179 pages back.\n192 is not above 192."
    )
    assert stage.page.locator(".kml-option[data-state=wrong]").inner_text().split("\n")[0] == "✕"
    stage.press("Tab", "Space")
    assert stage.focus == "kml-radio dma32"
    assert stage.page.locator(".kml-option[data-state=tried]").count() == 1
    stage.press("ArrowDown")
    assert stage.focus == "kml-radio null", "a tried option is passed over"
    stage.press("Enter")
    assert stage.page.locator(".kml-option[data-state=right]").inner_text().startswith("✓")
    assert stage.page.locator(".kml-feedback").inner_text() == "Right.\n148 <= 155."
    assert stage.page.locator(".kml-check").count() == 0
    assert stage.page.locator(".kml-radio:not(:disabled)").count() == 0
    assert stage.page.evaluate("window.outer") == 1, "only the Tab that led in"
    stage.press("Control+s", "Shift+Enter")
    assert stage.page.evaluate("window.outer") > 2, "these stay the notebook's"
    assert not stage.page.evaluate("document.querySelector('.kml-cards').hasAttribute('data-lm-suppress-shortcuts')")
    assert not stage.errors


def test_by_mouse_and_choosing_again_without_try_again(browser: Any) -> None:
    stage = Stage(browser, Predict(question))
    stage.page.click(".kml-check")
    stage.page.wait_for_function("window.settled === 1")
    assert stage.page.locator(".kml-feedback").inner_text() == "answer first"
    for key, settled in (("dma32", 2), ("null", 3)):
        stage.page.click(f".kml-option:has([value={key}])")
        assert stage.page.locator(".kml-check").inner_text() == "Check"
        stage.page.click(".kml-check")
        stage.page.wait_for_function(f"window.settled === {settled}")
    assert [one["given"] for one in stage.sent] == [[], ["dma32"], ["null"]]
    assert stage.card.done  # type: ignore[attr-defined]


def test_the_answer_is_not_in_the_page(browser: Any) -> None:
    stage = Stage(browser, Predict(question))
    assert "148 <= 155" not in stage.page.content().replace("&lt;", "<")
    assert stage.page.locator("b").count() == 0, "text never becomes markup"


def test_boxes(browser: Any) -> None:
    stage = Stage(browser, Predict(table))
    stage.press("Tab", "4", "Tab")
    stage.page.select_option("select", "sleeps")
    stage.press("Tab", "Enter")
    assert stage.sent == [{"do": "check", "given": ["4", "sleeps"]}]
    assert [row.get_attribute("data-state") for row in stage.page.locator(".kml-row").all()] == ["wrong", "right"]
    stage.page.fill("input.kml-blank", "3")
    assert stage.page.locator(".kml-check").inner_text() == "Check"
    stage.page.press("input.kml-blank", "Enter")
    stage.page.wait_for_function("window.settled === 2")
    assert stage.card.done  # type: ignore[attr-defined]


def test_exercise(browser: Any) -> None:
    stage = Stage(browser, exercise())
    assert stage.page.locator(".kml-rows li").count() == 2
    assert "BUG: sleeping function called" in stage.page.locator("li[data-state=bad]").inner_text()
    stage.page.focus(".kml-hint")
    stage.press("Enter")
    assert stage.focus.strip() == "kml-hint-text"
    assert stage.page.locator(".kml-hint").inner_text() == "Hint 2 of 2"
    stage.page.focus(".kml-check")
    stage.press("Space")
    assert stage.sent[-1] == {"do": "check", "given": []}
    assert stage.focus.strip() == "kml-feedback"


# Text and its background as painted: the nearest ancestor that paints one.
PAINTED = """() => {
  const hex = (c) => "#" + c.match(/[\\d.]+/g).slice(0, 3).map((n) => (+n).toString(16).padStart(2, "0")).join("");
  const out = [];
  for (const node of document.querySelectorAll(".kml-cards *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !node.getClientRects().length || node.closest(".kml-hidden")) continue;
    let back = node;
    const clear = (one) => /rgba\\(.*, 0\\)/.test(getComputedStyle(one).backgroundColor);
    while (back && clear(back)) back = back.parentElement;
    if (back) out.push([node.className || node.tagName, hex(getComputedStyle(node).color),
      hex(getComputedStyle(back).backgroundColor)]);
  }
  return out;
}"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [868, 358])
def test_contrast_size_and_fit(browser: Any, width: int, dark: bool) -> None:
    """AA contrast of all text as painted, targets of 24 px, nothing sticks out."""
    answered = Predict(question)
    for key in ("dma", "null"):
        answered.choose(key)
        answered.check()
    tried = Predict(question)
    tried.choose("dma")
    tried.check()
    for card in (answered, tried, Predict(table), exercise()):
        stage = Stage(browser, card, width, dark)
        painted = stage.page.evaluate(PAINTED)
        assert len(painted) > 5
        assert not [one for one in painted if contrast(one[1], one[2]) < 4.5]
        small = stage.page.evaluate(
            "[...document.querySelectorAll('button, .kml-option, .kml-blank, summary')]"
            ".map((n) => n.getBoundingClientRect()).filter((r) => r.height < 24 || r.width < 24).length"
        )
        assert small == 0
        out = stage.page.evaluate(
            "(() => { const edge = document.querySelector('#host').getBoundingClientRect().right;"
            "return [...document.querySelectorAll('.kml-cards *')].filter((n) => !n.closest('.kml-hidden') && ("
            "n.getBoundingClientRect().right > edge + 1 || (n.scrollWidth > n.clientWidth + 1 && n.clientWidth)))"
            ".map((n) => n.className) })()"
        )
        assert not out
        assert not stage.errors
