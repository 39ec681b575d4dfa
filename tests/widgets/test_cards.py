"""The prediction cards: what they tell, and what they keep back until it was given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kmemlab import GFP_DMA, Machine
from kmemlab_widgets.cards import Predict
from kmemlab_widgets.cardtext import ordinal
from kmemlab_widgets.questions import (
    Box,
    BoxesQuestion,
    Choice,
    NumberQuestion,
    Question,
    QuestionError,
    parse_number,
)

SECRET = "SECRET-OF-THE-RIGHT-ANSWER"


def ask(m: Any, seed: int, **more: Any) -> Question:
    return Question(
        ask=f"<b>What</b> does seed {seed} give?",
        code="alloc_pages(GFP_DMA, 0) < 5",
        choices=[
            Choice("dma32", "a page from `DMA32`", lambda m: f"No & never.\n{m.free_pcp('DMA')} on the shelf."),
            Choice("dma", "a page from DMA", "unused"),
            Choice("null", "NULL", "There is plenty."),
        ],
        answer=lambda m: "dma" if m.alloc_pages(GFP_DMA, 0) else "null",
        right=lambda m: f"{SECRET}: frame {m.alloc_pages(GFP_DMA, 0).pfn}.",
        **more,
    )


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="64M")


def everything(card: Any) -> str:
    """All that leaves Python: synced state, text twin, saved picture."""
    data, _ = card._repr_mimebundle_()
    return json.dumps([card.view, card.strip, str(card), data.get("text/plain"), data.get("text/html")])


# --- predict ------------------------------------------------------------------------------------


def test_from_the_question_to_the_answer(m: Machine) -> None:
    card = Predict(ask, m, place=(3, 5))
    assert card.view["kicker"] == "Predict · 3 of 5"
    card.choose("dma32")
    assert card.check() is False
    assert [option["state"] for option in card.view["options"]] == ["wrong", "", ""]
    assert card.view["feedback"] == {"tone": "bad", "head": "No & never.", "body": "0 on the shelf."}
    assert (card.view["button"], card.view["note"]) == ("Try again", "one tried, two left")
    card.try_again()
    assert [option["state"] for option in card.view["options"]] == ["tried", "", ""]
    assert card.view["feedback"] is None
    card.choose("a page from DMA")  # by its text
    assert card.check() is True
    assert [option["state"] for option in card.view["options"]] == ["tried", "right", ""]
    assert card.view["feedback"]["head"] == "Right."
    assert (card.view["button"], card.view["note"]) == ("", "2nd try")
    assert card.check() is True, "checking again changes nothing"
    assert card.tries == 2


def test_the_kernel_agrees_only_where_a_recording_says_so(m: Machine) -> None:
    card = Predict(lambda m, seed: ask(m, seed, recorded=True), m)
    card.choose("dma")
    card.check()
    assert card.view["feedback"]["head"] == "Right, and the kernel agreed."


def test_nothing_leaks_before_the_answer_is_given(m: Machine) -> None:
    """Neither the synced state nor the twin nor the picture holds the right answer, also after a wrong one."""
    card = Predict(ask, m)
    assert SECRET not in everything(card)
    fresh_options = [{**option, "key": "", "text": ""} for option in card.view["options"]]
    assert all(option == fresh_options[0] for option in fresh_options), "no option stands out"
    card.choose("null")
    card.check()
    assert SECRET not in everything(card)
    card.choose("dma")
    card.check()
    assert SECRET in everything(card)


def test_the_answer_is_not_even_computed_before_check(m: Machine) -> None:
    asked: list[str] = []

    def make(m: Any, seed: int) -> Question:
        choices = [Choice("a", "A", "no"), Choice("b", "B", "no")]
        return Question(ask="?", choices=choices, answer=lambda m: asked.append("x") or "a")

    card = Predict(make, m)
    everything(card)
    assert not asked
    card.choose("b")
    card.check()
    assert asked


def test_the_learners_machine_is_not_touched_and_may_go_on(m: Machine) -> None:
    """The answer is that of the moment when the card was shown."""
    card = Predict(lambda m, seed: NumberQuestion(ask="?", answer=lambda m: m.calls), m)
    calls = m.calls
    m.alloc_pages(GFP_DMA, 0)
    card.choose(calls)
    assert card.check() is True
    assert m.calls == calls + 1


def test_each_function_of_the_machine_gets_its_own_copy(m: Machine) -> None:
    """``answer`` and ``right`` both allocate, and both get the first page."""
    card = Predict(ask, m)
    card.choose("dma")
    card.check()
    assert card.view["feedback"]["body"] == f"{SECRET}: frame {m.alloc_pages(GFP_DMA, 0).pfn}."


def test_answer_first(m: Machine) -> None:
    card = Predict(ask, m)
    assert card.check() is None
    assert card.view["feedback"]["body"] == "answer first"
    assert (card.view["button"], card.tries) == ("Check", 0)


def test_twin_and_picture(m: Machine) -> None:
    card = Predict(ask, m, place=(3, 5))
    data, _ = card._repr_mimebundle_()
    assert data["text/plain"].splitlines() == [
        "Predict 3 of 5: <b>What</b> does seed 0 give?",
        "alloc_pages(GFP_DMA, 0) < 5",
        "[a] a page from `DMA32`",
        "[b] a page from DMA",
        "[c] NULL",
        "Not answered yet.",
    ]
    assert "&lt;b&gt;What&lt;/b&gt;" in data["text/html"]
    assert "<b>" not in data["text/html"]
    assert "<code>DMA32</code>" in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data
    again, _ = Predict(ask, m, place=(3, 5))._repr_mimebundle_()
    assert (again["text/plain"], again["text/html"]) == (data["text/plain"], data["text/html"])
    card.choose("null")
    card.check()
    assert "[c] NULL (tried)" in str(card)
    assert "There is plenty. Not answered yet." in str(card)


def test_several_answers_may_be_right(m: Machine) -> None:
    for key in ("a", "b"):
        card = Predict(lambda m, seed: Question(ask="?", choices=ABC, answer=["a", "b"]), m)
        card.choose(key)
        assert card.check() is True
    card = Predict(lambda m, seed: Question(ask="?", choices=ABC, answer=["a", "b"]), m)
    card.choose("c")
    assert card.check() is False


ABC = [Choice("a", "A", "not a"), Choice("b", "B", "not b"), Choice("c", "C", "not c")]


def test_choose_all_that_are_right(m: Machine) -> None:
    card = Predict(lambda m, seed: Question(ask="?", choices=ABC, answer=["a", "b"], multi=True), m)
    card.choose("a")
    assert card.check() is None
    assert "1 more is" in card.view["feedback"]["body"]
    assert card.tries == 0
    card.choose("a", "c")
    assert card.check() is False
    assert card.view["feedback"]["body"] == "not c"
    card.choose("a", "b", "c")  # c is settled: it cannot be ticked any more
    assert card.check() is True


def test_a_vote_is_kept(m: Machine) -> None:
    card = Predict(lambda m, seed: Question(ask="?", choices=ABC, vote=True, right="See section 9."), m)
    card.choose("c")
    assert card.check() is True
    assert card.view["feedback"] == {"tone": "note", "head": "Kept.", "body": "See section 9."}


def number(m: Any, seed: int) -> NumberQuestion:
    return NumberQuestion(
        ask="How many?",
        answer=lambda m: 3808,
        wrong={7: "That is the number of blocks.", 3840: lambda m: "That is managed."},
        otherwise="Column k counts blocks of 2^k.",
        unit="pages",
        right="1 x 32 + ...",
    )


@pytest.mark.parametrize(
    ("text", "right", "why"),
    [
        ("7", False, "That is the number of blocks."),
        ("3,840", False, "That is managed."),
        ("5120", False, "Column k counts blocks of 2^k."),
        ("3,808", True, "1 x 32 + ..."),
        ("0xee0", True, "1 x 32 + ..."),
        ("many", None, "`many` is not a number"),
        ("", None, "answer first"),
    ],
)
def test_numbers(m: Machine, text: str, right: bool | None, why: str) -> None:
    card = Predict(number, m)
    card.choose(text)
    assert card.check() is right
    assert card.view["feedback"]["body"] == why
    assert ("1 x 32" in everything(card)) is (right is True)


def test_numbers_with_tolerance(m: Machine) -> None:
    def make(m: Any, seed: int) -> NumberQuestion:
        return NumberQuestion(ask="?", answer=25.0, tolerance=3, unit="%")

    for text, right in (("22 %", True), ("28,0", True), ("28.1", False), ("21.9", False)):
        card = Predict(make, m)
        card.choose(text)
        assert card.check() is right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 3,808 ", 3808),
        ("3 808", 3808),
        ("1_000", 1000),
        ("11,476,662", 11476662),
        ("0xCC0", 0xCC0),
        ("2.1%", 2.1),
        ("3,7", 3.7),
        ("-287", -287),
        ("", None),
        ("12 pages", None),
        ("inf", None),
        ("nan", None),
        ("1e400", None),
    ],
)
def test_what_people_write(text: str, value: float | None) -> None:
    assert parse_number(text) == value


def boxes(m: Any, seed: int) -> BoxesQuestion:
    return BoxesQuestion(
        ask="Who sleeps?",
        boxes=[
            Box(label="calls", answer=3, otherwise="Count the kept mask too."),
            Box(label="GFP_KERNEL", options=("NULL", "sleeps"), answer="sleeps", wrong={"NULL": "It may wait."}),
        ],
        right="Yes.",
    )


def test_several_boxes(m: Machine) -> None:
    card = Predict(boxes, m)
    card.choose("3")
    assert card.check() is None
    assert card.view["feedback"]["body"] == "fill in every box first"
    card.choose("3", "NULL")
    assert card.check() is False
    assert card.view["feedback"]["body"] == "GFP_KERNEL: It may wait."
    assert [box["state"] for box in card.view["boxes"]] == ["right", "wrong"]
    card.try_again()
    assert [box["value"] for box in card.view["boxes"]] == ["3", "NULL"], "what was written stays"
    card.choose("3", "sleeps")
    assert card.check() is True
    assert "GFP_KERNEL (NULL / sleeps): [sleeps] (right)" in str(card)


def test_another_with_new_numbers(m: Machine) -> None:
    def make(m: Any, seed: int) -> NumberQuestion:
        return NumberQuestion(ask=f"seed {seed}", answer=seed)

    card = Predict(make, m)
    card.choose(0)
    card.check()
    assert card.view["another"] == "", "only where the author says that seeds differ"
    make.variants = True  # type: ignore[attr-defined]
    card.another()
    card.refresh()
    assert (card.view["ask"], card.done, card.tries) == ("seed 1", False, 0)
    card.choose(1)
    assert card.check() is True
    assert card.view["another"]


def test_a_question_that_fails_does_not_take_the_cell_with_it(m: Machine) -> None:
    def broken(m: Any, seed: int) -> Question:
        return m.no_such_thing

    card = Predict(broken, m)
    assert "card error: AttributeError" in card.view["error"]
    assert "the machine is not affected" in str(card)
    assert card.check() is None
    stranger = Predict(lambda m, seed: Question(ask="?", choices=ABC, answer=lambda m: "z"), m)
    stranger.choose("a")
    assert stranger.check() is None
    assert "the engine answers 'z'" in stranger.view["error"]


def test_several_right_answers_with_words_of_their_own(m: Machine) -> None:
    def two(m: Any, seed: int) -> Question:
        right = {"a": "A it is", "b": lambda m: f"B has {len(m.zones)} zones"}
        return Question(ask="?", choices=ABC, answer=["a", "b"], right=right)

    for key, words in (("a", "A it is"), ("b", "B has 2 zones"), ("c", "not c")):
        card = Predict(two, m)
        card.choose(key)
        assert card.check() is (key != "c")
        assert card.verdict.text == words
    with pytest.raises(QuestionError, match="`right` has words for z, the choices are a, b, c"):
        Question(ask="?", choices=ABC, answer=["a", "b"], right={"z": "Z"})


def test_a_question_needs_different_keys() -> None:
    with pytest.raises(QuestionError, match="different keys"):
        Question(ask="?", choices=[Choice("a", "A"), Choice("a", "B")])


def test_what_the_browser_may_send(m: Machine) -> None:
    """Clicks arrive as messages; nonsense does nothing."""
    card = Predict(ask, m)
    for nonsense in (None, {}, {"do": "_begin"}, {"do": 7}, {"do": "check", "given": [{}]}):
        card._on_message(card, nonsense, [])
        assert not card.done
    card._on_message(card, {"do": "check", "given": ["null"]}, [])
    assert card.tried == ("null",)
    card._on_message(card, {"do": "again", "given": []}, [])
    card._on_message(card, {"do": "check", "given": ["dma"]}, [])
    assert card.done


def test_choose_says_what_there_is(m: Machine) -> None:
    with pytest.raises(ValueError, match="no option 'x': the options are dma32, dma, null"):
        Predict(ask, m).choose("x")


def test_ordinals() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 112)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]
    )
