"""What a card shows, as plain data, and that data in words and as a still picture.

``predict_view`` and ``exercise_view`` are the only places that decide what the browser gets to know.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kmemlab_widgets.questions import BoxesQuestion, Choice, NumberQuestion, Question
from kmemlab_widgets.theme import LIGHT, plural

if TYPE_CHECKING:
    from kmemlab_widgets.cards import Exercise, Predict

__all__ = ["exercise_view", "ordinal", "picture", "predict_view", "say", "twin"]

View = dict[str, Any]
_COUNT = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def say(text: Any, fresh: Callable[[], Any]) -> str:
    """A text, or what a function of the machine says."""
    return str(text(fresh())) if callable(text) else str(text)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th ..."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _in_words(number: int) -> str:
    return _COUNT[number] if number < len(_COUNT) else str(number)


def _feedback(tone: str, text: str) -> View:
    """The first line is the headline if there is a second."""
    head, newline, body = text.strip().partition("\n")
    return {"tone": tone, "head": head if newline else "", "body": body.strip() if newline else head}


# --- predict ------------------------------------------------------------------------------------


def predict_view(card: Predict) -> View:
    """What the browser may know of a prediction now."""
    number, total = card._place
    kicker = f"Predict · {number} of {total}"
    question = card.question
    if question is None:
        return {"kind": "predict", "kicker": kicker, "ask": "", "error": card.error, "button": "", "options": []}
    multi = isinstance(question, Question) and question.multi
    view: View = {
        "kind": "predict",
        "kicker": kicker + (" · new numbers" if card.seed else ""),
        "ask": card._ask,
        "code": question.code,
        "multi": multi,
        "options": [],
        "boxes": [],
        "feedback": _predict_feedback(card),
        "button": "" if card.done else "Check",
        "another": "Another with new numbers" if card.done and card.variants else "",
        "note": _predict_note(card),
        "error": card.error,
        "done": card.done,
        "tries": card.tries,
        "seed": card.seed,
    }
    if card.verdict and card.verdict.right is False:
        view["button"] = "Try again"
    if isinstance(question, Question):
        view["options"] = [_option(card, choice) for choice in question.choices]
    else:
        view["boxes"] = [_box(card, question, index) for index in range(len(question.boxes))]
    return view


def _option(card: Predict, choice: Choice) -> View:
    verdict = card.verdict
    state = ""
    if choice.key in card.tried:
        state = "wrong" if verdict and verdict.right is False and choice.key in verdict.wrong else "tried"
    elif card.done and choice.key in (verdict.good if verdict else ()):
        state = "right"
    return {"key": choice.key, "text": choice.text, "state": state, "chosen": choice.key in card.given}


def _box(card: Predict, question: BoxesQuestion | NumberQuestion, index: int) -> View:
    box, verdict = question.boxes[index], card.verdict
    state = ""
    if verdict and verdict.right is not None:
        state = "wrong" if str(index) in verdict.wrong else "right"
    value = card.given[index] if index < len(card.given) else ""
    return {"label": box.label, "unit": box.unit, "options": list(box.options), "value": value, "state": state}


def _predict_feedback(card: Predict) -> View | None:
    verdict, question = card.verdict, card.question
    if verdict is None:
        return None
    if verdict.right is None:
        return _feedback("note", verdict.text)
    if not verdict.right:
        return _feedback("bad", verdict.text)
    assert question is not None
    head = "Kept." if question.vote else "Right, and the kernel agreed." if question.recorded else "Right."
    return {"tone": "note" if question.vote else "ok", "head": head, "body": verdict.text.replace("\n", " ")}


def _predict_note(card: Predict) -> str:
    question = card.question
    if card.done and question is not None:
        return "" if question.vote else f"{ordinal(card.tries)} try" if card.tries > 1 else "first try"
    if isinstance(question, Question) and card.tried and not question.multi:
        left = len(question.choices) - len(card.tried)
        return f"{_in_words(len(card.tried))} tried, {_in_words(left)} left"
    if card.tries:
        return f"{_in_words(card.tries)} tried"
    if card.seed == 0 and card.lesson is not None and (before := card.lesson.before(card.name)):
        return before
    return question.note if question is not None else ""


# --- exercise -----------------------------------------------------------------------------------


def exercise_view(card: Exercise) -> View:
    """What the browser may know of an exercise now."""
    spec, report = card.spec, card.report
    rows = [
        {"ok": row.passed, "tried": row.tried, "kernel": row.kernel, "why": row.why, "where": row.where}
        for row in card.rows()
    ]
    if report is None:
        summary = f"{plural(len(spec.checks), 'check')}, none run yet"
    else:
        summary = f"{report.passed} of {len(rows)} checks pass"
    more = card.hints < len(spec.hints)
    return {
        "kind": "exercise",
        "kicker": f"Exercise {spec.letter}" + (f" · {spec.title}" if spec.title else ""),
        "ask": spec.task,
        "code": spec.signature if report else spec.starter.strip("\n"),
        "summary": summary,
        "rows": rows,
        "todo": "" if report else "Write the function and run its cell.",
        "printed": report.printed.strip("\n") if report else "",
        "hints": list(spec.hints[: card.hints]),
        "hint": f"Hint {card.hints + 1} of {len(spec.hints)}" if more else "",
        "button": "Check",
        "note": _exercise_note(card),
        "error": card.error,
        "done": card.done,
    }


def _exercise_note(card: Exercise) -> str:
    attempts = card.lesson.attempts(card.name) if card.lesson is not None and card.report else 0
    if card.lesson is None or not attempts:
        return ""
    return f"{ordinal(attempts)} attempt, {'saved' if card.lesson.saved else 'kept for this session'}"


# --- in words -----------------------------------------------------------------------------------


def twin(view: View) -> str:
    """A view in words, for screen readers, for the saved notebook and for tests."""
    if view["kind"] == "strip":
        return _strip_twin(view["strip"])
    if view["kind"] == "exercise":
        return _exercise_twin(view)
    parts = [f"{view['kicker'].replace(' · ', ' ', 1)}: {view['ask']}"]
    if view.get("code"):
        parts.append(view["code"])
    words = {"wrong": " (tried)", "tried": " (tried)", "right": " (right)", "": ""}
    for letter, option in zip("abcdefghijklmnopqrstuvwxyz", view["options"], strict=False):
        parts.append(f"[{letter}] {option['text']}{words[option['state']]}")
    for box in view.get("boxes", []):
        choices = f" ({' / '.join(box['options'])})" if box["options"] else ""
        shown = box["value"] if box["state"] else ""
        parts.append(f"{box['label'] or 'a number'}{choices}: [{shown}]{words[box['state']]} {box['unit']}".rstrip())
    parts.append(_state_twin(view))
    return "\n".join(parts)


def _state_twin(view: View) -> str:
    if view.get("error"):
        return view["error"]
    said = view.get("feedback")
    words = " ".join(part for part in (said["head"], said["body"]) if part) if said else ""
    if view["done"]:
        return f"Answered, {view['note']}. {words}".replace(", .", ".").strip()
    return f"{words} Not answered yet.".strip()


def _exercise_twin(view: View) -> str:
    lines = [f"{view['kicker'].replace(' · ', ', ', 1)}: {view['ask']}", view["code"]]
    lines += [f"Hint: {hint}" for hint in view["hints"]]
    lines.append(f"{view['summary']}. {view['todo']}".rstrip())
    for row in view["rows"]:
        lines.append(f"{'✓' if row['ok'] else '✕'} {row['tried']}" + (f" ({row['where']})" if row["where"] else ""))
        lines += [f"  {part}" for part in (row["kernel"], row["why"]) if part and not row["ok"]]
    if view["error"]:
        lines.append(view["error"])
    return "\n".join(lines)


def _strip_twin(strip: View) -> str:
    def each(cells: list[View]) -> str:
        return " ".join(f"{cell['label']}:{cell['words']}" for cell in cells)

    text = f"{strip['title']}: {strip['summary']}. Questions {each(strip['cells'])}"
    if strip["exercises"]:
        text += f". Exercises {each(strip['exercises'])}"
    return text + (f". {strip['note']}" if strip["note"] else "")


# --- a still picture ----------------------------------------------------------------------------

# The light theme, with its background: a saved notebook may be read on a dark page.
INK, INK2, PAPER, WASH, LINE, RULE = (LIGHT[name] for name in ("ink", "ink2", "paper", "wash", "line", "rule"))
TONES = {tone: (LIGHT[tone], LIGHT[f"{tone}bg"]) for tone in ("ok", "bad", "wait")} | {"note": (LINE, WASH)}


def marked(text: str) -> str:
    """Text for HTML: escaped, with `backticks` as code and line ends kept."""
    safe = html.escape(text, quote=True)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", safe).replace("\n", "<br>")


def _div(style: str, inner: str) -> str:
    return f'<div style="{style}">{inner}</div>'


def picture(view: View) -> str:
    """A view as HTML with its own colours, made of what notebook sanitizers let through."""
    if view["kind"] == "strip":
        inner = _strip_picture(view["strip"])
    else:
        inner = _card_picture(view)
    return _div(
        f"max-width:{868 if view['kind'] != 'predict' else 560}px;padding:14px 16px;border:1px solid {RULE};"
        f"border-radius:6px;background-color:{PAPER};color:{INK};font-size:13px;line-height:1.45",
        inner,
    )


def _card_picture(view: View) -> str:
    parts = [
        _div(f"font-size:12px;font-weight:600;color:{INK2}", marked(view["kicker"])),
        _div("font-size:14px;font-weight:600;margin:2px 0 8px 0", marked(view["ask"])),
    ]
    if view.get("code"):
        code = html.escape(view["code"])
        parts.append(f'<pre style="background-color:{WASH};color:{INK};padding:8px 10px;margin:0 0 8px 0">{code}</pre>')
    parts += [_option_picture(option, view["multi"]) for option in view.get("options", [])]
    for box in view.get("boxes", []):
        parts.append(_option_picture({"text": f"{box['label']} ____ {box['unit']}".strip(), "state": ""}, True))
    said = view.get("feedback")
    if said:
        parts.append(_tinted(said["tone"], said["head"], said["body"]))
    parts += [_div(f"color:{INK2};margin:4px 0", f"Hint: {marked(hint)}") for hint in view.get("hints", [])]
    if "rows" in view:
        parts.append(_div(f"font-size:12px;font-weight:600;color:{INK2};margin-top:8px", marked(view["summary"])))
        parts += [_row_picture(row) for row in view["rows"]]
    if view.get("error"):
        parts.append(_tinted("bad", "", view["error"]))
    return "".join(parts)


def _tinted(tone: str, head: str, body: str) -> str:
    edge, tint = TONES[tone]
    bold = f"<strong>{marked(head)}</strong><br>" if head else ""
    style = f"border-left:4px solid {edge};background-color:{tint};color:{INK};padding:8px 10px;margin:8px 0"
    return _div(style, bold + marked(body))


def _option_picture(option: View, square: bool) -> str:
    glyph = {"wrong": "✕", "tried": "✕", "right": "✓"}.get(option["state"], "□" if square else "○")
    edge, tint = {"wrong": TONES["bad"], "right": TONES["ok"]}.get(option["state"], (LINE, PAPER))
    dash = "dashed" if option["state"] == "tried" else "solid"
    colour = INK2 if option["state"] == "tried" else INK
    return _div(
        f"border:1px {dash} {edge};border-radius:4px;background-color:{tint};color:{colour};"
        "padding:7px 10px;margin:0 0 6px 0",
        f"{glyph} &nbsp; {marked(option['text'])}",
    )


def _row_picture(row: View) -> str:
    colour = TONES["ok" if row["ok"] else "bad"][0]
    inner = f'<span style="color:{colour}">{"✓" if row["ok"] else "✕"}</span> &nbsp; '
    inner += marked(row["tried"]) if row["ok"] else f"<strong>{marked(row['tried'])}</strong>"
    if row["where"]:
        inner += f' <span style="color:{INK2}">· {marked(row["where"])}</span>'
    if not row["ok"] and row["kernel"]:
        inner += f"<br><code>{html.escape(row['kernel'])}</code>"
    if not row["ok"] and row["why"]:
        inner += f"<br>{marked(row['why'])}"
    return _div("margin:4px 0", inner)


def _strip_picture(strip: View) -> str:
    def cell(one: View) -> str:
        edge, tint = {"ok": TONES["ok"], "late": TONES["wait"]}.get(one["state"], (LINE, PAPER))
        colour = edge if one["state"] else INK
        return (
            f'<span style="border:1px solid {edge};background-color:{tint};color:{colour};'
            f'border-radius:3px;padding:3px 12px;margin-right:6px">{marked(one["text"])}</span>'
        )

    inner = f'<span style="color:{INK2}">{marked(strip["title"])} &nbsp; </span>'
    inner += "".join(cell(one) for one in strip["cells"])
    if strip["exercises"]:
        inner += f'<span style="color:{INK2}"> exercises &nbsp; </span>'
        inner += "".join(cell(one) for one in strip["exercises"])
    if strip["note"]:
        inner += _div(f"color:{INK2};margin-top:6px", marked(strip["note"]))
    return inner
