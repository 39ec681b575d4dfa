"""Reports on code that sleeps where it must not: the place of every recorded one, the model's own, damaged ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemlab import GFP_KERNEL, HungTask, Machine
from kmemlab.sleep_reader import place_of, read_sleep_reports

RECORDINGS = Path(__file__).resolve().parents[1] / "kernel" / "recordings"
INDEX = json.loads(gzip.decompress((RECORDINGS / "misuse.json.gz").read_bytes()))
SPINLOCK = "process context with a spinlock held or preemption off"
PLACES = {
    "spinlock": SPINLOCK, "rawspinlock": SPINLOCK, "preempt": SPINLOCK, "rcu": "process context under rcu_read_lock",
    "bh": "process context with bottom halves off", "irqoff": "process context with interrupts off",
    "timer": "a softirq (a timer, a tasklet)", "timer_idle": "a softirq (a timer, a tasklet)",
    "tasklet": "a softirq (a timer, a tasklet)", "hrtimer": "a hard interrupt", "irq_work": "a hard interrupt",
}  # fmt: skip
WORDS = {
    "spin_lock": "spinlock", "softirq": "softirq", "hardirq": "hard interrupt", "local_irq_save": "interrupts off",
    "rcu_read_lock": "rcu_read_lock", "local_bh_disable": "bottom halves",
}  # fmt: skip
TEXTS = sorted((RECORDINGS / "misuse").glob("*_page_*.txt"))
SOMETHING = TEXTS[0].read_text(encoding="utf-8")


def of(path: Path) -> str:
    """The context a recorded text was made in."""
    return path.stem.partition("_page_")[2]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_recorded_places(path: Path) -> None:
    """Every report names its place and the module's function; where there is none, nothing is read."""
    text = path.read_text(encoding="utf-8")
    reports = read_sleep_reports(text)
    assert len(reports) == text.count("BUG: sleeping function") + text.count("BUG: scheduling while atomic")
    for report in reports:
        assert report.place == PLACES[of(path)]
        assert report.comm in ("insmod", "swapper/0", "ksoftirqd/0")
        assert report.caller == "do_op"
        assert text.splitlines()[report.first].endswith(report.lines[0][0])
        assert report.place in report.headline


def test_enough_is_recorded() -> None:
    assert len(TEXTS) >= 20
    assert len(INDEX) > 200


@pytest.mark.parametrize(
    "place", ["spin_lock", "softirq", "hardirq", "local_irq_save", "rcu_read_lock", "local_bh_disable"]
)
def test_the_models_reports(place: str) -> None:
    m = Machine("linux-6.1", memory="64M", config=("DEBUG_ATOMIC_SLEEP",))
    section = m.spin_lock("lock") if place == "spin_lock" else getattr(m, place)()
    with section:
        m.kmalloc(64, GFP_KERNEL)
    (report,) = read_sleep_reports(m.dmesg())
    assert WORDS[place] in report.headline
    assert report.headline.startswith("python called what may sleep in ")
    assert sum(bool(said) for _, said in report.lines) >= 3


def test_a_hung_task() -> None:
    m = Machine("linux-6.1", memory="64M")
    with m.mutex_lock("lock"), pytest.raises(HungTask):
        m.mutex_lock("lock")
    (report,) = read_sleep_reports(m.dmesg())
    assert report.headline == "python has slept for more than 120 seconds: it waits for somebody"


def test_places() -> None:
    assert place_of(0) == ""
    assert place_of(0x10101, irqs_off=True) == "a hard interrupt"
    assert place_of(0x100000) == "a non-maskable interrupt"
    assert place_of(0, rcu=2) == "process context under rcu_read_lock"


@given(st.text(), st.integers(0, len(SOMETHING)), st.integers(0, len(SOMETHING)))
def test_damaged_reports_never_break_it(noise: str, a: int, b: int) -> None:
    for text in (
        SOMETHING[:a] + noise + SOMETHING[b:],
        "BUG: sleeping function called from invalid context at x\n" + noise,
    ):
        for report in read_sleep_reports(text):
            assert str(report).startswith(report.headline)
