"""The trace's text: parsed line by line, replayed event by event."""

from __future__ import annotations

import gzip
import shutil
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from kmemlab import GFP_HIGHUSER_MOVABLE, Machine, RecordingError, conform
from kmemlab.ftrace import TraceLine, parse_trace, replay, trace_beside
from kmemlab.recording import load_recording

REAL = Path(__file__).resolve().parents[2] / "lessons" / "recordings"
FIND = REAL / "real-find-256M.snap.json.gz"
TRACE = gzip.decompress((REAL / "real-find-256M.trace.txt.gz").read_bytes()).decode()
HEAD = "          insmod-87      [000] .....     2.091996: "


def parse(tmp_path: Path, text: str) -> list[TraceLine]:
    path = tmp_path / "some.trace.txt"
    path.write_text(text)
    return list(parse_trace(path))


def test_lines_become_events(tmp_path: Path) -> None:
    """Each kind of line with its fields; comments, blank lines and other events are passed over."""
    text = (
        "# tracer: nop\n\n"
        f"{HEAD}mm_page_alloc: page=(____ptrval____) pfn=0x7de6 order=2 migratetype=1 gfp_flags=GFP_HIGHUSER_MOVABLE\n"
        f"{HEAD}mm_page_alloc: page=0000 pfn=0x0 order=0 migratetype=0 gfp_flags=0x20\n"
        f"{HEAD}mm_page_free: page=(____ptrval____) pfn=0x48fb order=3\n"
        f"{HEAD}mm_page_free_batched: page=(____ptrval____) pfn=0x48fc order=0\n"
        f"{HEAD}kmalloc: call_site=x ptr=y\n"
        "  a b-c-12      [003] d..1.    12.5: bulkret: (a+0x1 <- b) arg1=0x1f\n"
    )
    assert parse(tmp_path, text) == [
        TraceLine(3, "mm_page_alloc", 0, 0x7DE6, 2, int(GFP_HIGHUSER_MOVABLE)),
        TraceLine(4, "mm_page_alloc", 0, -1, 0, 0x20),
        TraceLine(5, "mm_page_free", 0, 0x48FB, 3),
        TraceLine(6, "mm_page_free_batched", 0, 0x48FC, 0),
        TraceLine(8, "bulkret", 3, count=31),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("what is this", "line 2: is not an ftrace line: 'what is this'"),
        (f"{HEAD}mm_page_alloc: pfn=0x5 order=0", "line 2: mm_page_alloc without 'gfp_flags'"),
        (f"{HEAD}mm_page_free: order=0", "line 2: mm_page_free without 'pfn'"),
        (f"{HEAD}mm_page_free: pfn=zz order=0", "line 2: mm_page_free: invalid literal"),
        (f"{HEAD}mm_page_free: pfn=0x5 order=11", "line 2: mm_page_free: order 11 does not exist"),
        (f"{HEAD}mm_page_alloc: pfn=0x5 order=0 gfp_flags=GFP_WHAT", "'GFP_WHAT' is not a gfp flag of linux-6.1"),
        (f"{HEAD}bulkret: nothing", "line 2: bulkret: has no count"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    """File, line number, what is wrong: one line."""
    with pytest.raises(RecordingError) as caught:
        parse(tmp_path, f"# head\n{line}\n")
    assert "\n" not in str(caught.value)
    assert "some.trace.txt: " in str(caught.value)
    assert said in str(caught.value)


def with_trace(tmp_path: Path, content: bytes) -> Path:
    shutil.copy(FIND, tmp_path / FIND.name)
    (tmp_path / "real-find-256M.trace.txt.gz").write_bytes(content)
    return tmp_path / FIND.name


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(TRACE.encode())[:500], "cut off or damaged"),
        (b"\xff\xfe\xfd", "not the text of a trace"),
        (TRACE.replace("[000]", "[007]", 1).encode(), "CPU 7: the machine has 1"),
        (f"{HEAD}mm_page_free: pfn=0xfffffff order=0\n".encode(), "line 1: frame 268435455 is not in the machine's"),
    ],
    ids=["cut", "bytes", "cpu", "frame"],
)
def test_a_trace_that_does_not_belong(tmp_path: Path, content: bytes, said: str) -> None:
    """A damaged trace, or that of another machine."""
    with pytest.raises(RecordingError) as caught:
        conform(with_trace(tmp_path, content))
    assert said in str(caught.value)
    assert "real-find-256M.trace.txt.gz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_line_is_a_miss_not_a_crash(tmp_path: Path) -> None:
    """One event lost from the trace: later pages differ, the replay goes on to its end."""
    lines = TRACE.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if "mm_page_alloc:" in line)
    result = conform(with_trace(tmp_path, "".join(lines[:first] + lines[first + 1 :]).encode()))
    assert not result.exact
    assert result.total == conform(FIND).total - 1
    assert "line " in result.miss


def test_movable_pages_go_to_the_lru(tmp_path: Path) -> None:
    """A raid on a pageblock counts movable pages in use: the replay keeps them in ``lru``."""
    recording = load_recording(FIND)
    m = Machine.from_recording(FIND)
    before = sum(len(zone.lru) for zone in m.zones)
    seen: list[int] = []
    replay(m, recording, lambda machine, call, kernel, page: seen.append(kernel))
    assert len(seen) == 562
    assert sum(len(zone.lru) for zone in m.zones) != before
    assert m.check()
    assert trace_beside(recording).name == "real-find-256M.trace.txt.gz"


def test_long_lines_are_read_in_linear_time(tmp_path: Path) -> None:
    """A line of blanks, or of what looks like a hundred thousand tasks, must not take minutes."""
    start = time.perf_counter()
    for line in (" " * 100_000 + "x", "-1" * 100_000, "-1 [" * 50_000, HEAD + "mm_page_free: " + "pfn=" * 50_000):
        with pytest.raises(RecordingError):
            parse(tmp_path, line)
    assert time.perf_counter() - start < 5


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    line=st.integers(11, 200), at=st.integers(0, 160), gone=st.integers(0, 20),
    put=st.sampled_from(["", "-1", "0", "x", "9" * 5000, "0x", "=", "[", "]", ":", "|", " ", "\t", "\x0b", "١"]),
)  # fmt: skip
def test_any_line_may_be_odd(tmp_path: Path, line: int, at: int, gone: int, put: str) -> None:
    """Whatever is changed in a line: it is read, or told in one line with file and line."""
    lines = TRACE.splitlines()[:200]
    text = lines[min(line, len(lines) - 1)]
    lines[min(line, len(lines) - 1)] = text[:at] + put + text[at + gone :]
    try:
        parse(tmp_path, "\n".join(lines))
    except RecordingError as error:
        said = str(error)
    else:
        return
    assert "\n" not in said
    assert "some.trace.txt: line " in said
