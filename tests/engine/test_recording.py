"""Recordings: read field by field; a damaged or foreign file is one line, never a traceback."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from kmemlab import Machine, RecordingError, conform
from kmemlab.conform import compare_states
from kmemlab.recording import find_recording, load_recording

ROOT = Path(__file__).resolve().parent.parent.parent
LESSON = ROOT / "lessons" / "recordings" / "256M-a-21.json.gz"
MANY_CPUS = ROOT / "tests" / "kernel" / "recordings" / "buddy" / "192M-mcpu4-h-202.json.gz"


def short_recording() -> str:
    """A recording of four CPUs with only its first calls: a replay takes milliseconds."""
    data = json.loads(gzip.decompress(MANY_CPUS.read_bytes()))
    data["ops"] = data["ops"][:60]
    return json.dumps(data)


SHORT = short_recording()


def one_line(error: Exception, *words: str) -> None:
    """The message is one line of bearable length that names the file and the place."""
    text = str(error)
    assert "\n" not in text
    assert text.isprintable()
    assert len(text) < 600
    for word in words:
        assert word in text


def test_found_by_path_and_by_name(monkeypatch, tmp_path: Path) -> None:
    """A path, a name of the lessons' recordings, a name of the tests' ones, one in the current folder."""
    assert find_recording(LESSON) == LESSON
    assert find_recording("256M-a-21") == LESSON
    assert find_recording("192M-mcpu4-h-202") == MANY_CPUS
    (tmp_path / "recordings").mkdir()
    mine = tmp_path / "recordings" / "mine.json.gz"
    mine.write_bytes(LESSON.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert find_recording("mine") == mine
    with pytest.raises(RecordingError, match=r"^nothing: no such recording"):
        find_recording("nothing")


def test_the_dumped_state_is_the_machines_state() -> None:
    """Every number and every list of the dump, in its order, is in the machine."""
    recording = load_recording(LESSON)
    m = Machine.from_recording(LESSON)
    assert (recording.kind, recording.name, m.label) == ("buddy", "256M-a-21", "256M-a-21")
    for zone, dumped in zip(m.zones, [z for z in recording.state0["zones"] if z["managed"]], strict=True):
        for name in ("idx", "start_pfn", "spanned", "present", "managed", "nr_free_pages", "lowmem_reserve"):
            assert getattr(zone, name) == dumped[name]
        assert zone.wmark == dumped["wmark"][:3]
        assert [zone.nr_free(order) for order in range(11)] == dumped["nr_free"]
        for key, pfns in dumped["free"].items():
            order, mt = map(int, key.split(","))
            assert list(zone.free_blocks(order, mt)) == pfns
        for key, pages in dumped["pcp"]["lists"].items():
            assert [[page.pfn, page.mt] for page in reversed(zone.pcp.lists[int(key)])] == pages
        assert zone.pcp.count == dumped["pcp"]["count"]
    assert list(compare_states(m, Machine.from_recording(LESSON))) == []
    assert list(compare_states(m, Machine.from_recording(LESSON, state="state1"))) != []


def test_the_recorded_settings_are_the_machines() -> None:
    """sysctl values of the recorded kernel; -1 (could not be read) leaves the default."""
    m = Machine.from_recording("256M-sysctl-c-71")
    meta = m.recording.meta
    for name in ("min_free_kbytes", "watermark_boost_factor", "percpu_pagelist_high_fraction", "lowmem_reserve_ratio"):
        assert m.sysctl(f"vm.{name}") == meta[name]
    assert Machine.from_recording("1536M-i386-a-301").sysctl("vm.watermark_boost_factor") == 15000


def test_each_cpu_has_its_lists() -> None:
    """Four CPUs in the dump are four CPUs of the machine."""
    m = Machine.from_recording(MANY_CPUS)
    assert m.cpus == 4
    for zone in m.zones:
        assert [pcp.cpu for pcp in zone.pcps] == [0, 1, 2, 3]


def test_32_bit_machines_are_known_by_their_zone() -> None:
    """A zone HighMem makes it the i386 kernel."""
    assert Machine.from_recording("1536M-i386-a-301").kernel.name == "linux-6.1-i386"
    assert Machine.from_recording(LESSON).kernel.name == "linux-6.1"


# --- files that are not what they should be -----------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d.pop("meta"), "recording: has no field 'meta'"),
        (lambda d: d.pop("state1"), "has no field 'state1'"),
        (lambda d: d["state0"].update(zones=7), "state0.zones: is int, should be list"),
        (lambda d: d["state0"]["zones"][1].pop("wmark"), "state0.zones[1]: has no field 'wmark'"),
        (lambda d: d["state0"]["zones"][1].update(managed=-4), "state0.zones[1].managed: is -4"),
        (lambda d: d["state0"]["zones"][1].update(managed=True), "state0.zones[1].managed: is bool"),
        (lambda d: d["state0"]["zones"][1].update(spanned=1 << 35), "state0.zones: memory up to frame"),
        (lambda d: d["state0"]["zones"][1].update(name="x\ny"), r"'x\\ny' is not the name of a zone"),
        (lambda d: d["state0"]["zones"][1].update(idx=0), "two zones have the same idx"),
        (lambda d: d["state0"]["zones"][1]["free"].update({"0,0": [3]}), "free['0,0']: frame 3 cannot be"),
        (lambda d: d["state0"]["zones"][1]["free"].update({"x\n": []}), "is not 'order,migratetype'"),
        (lambda d: d["state0"]["zones"][1]["free"].update({"11,0": []}), "no such list"),
        (lambda d: d["state0"]["zones"][1]["pcps"].pop("3"), "the same number of CPUs"),
        (lambda d: d["state0"]["zones"][1]["pcps"]["0"]["pcp"].update(count=1), "the lists hold"),
        (lambda d: d["state0"]["zones"][1]["pcps"]["0"]["pcp"].update(batch=0), "batch: is 0"),
        (lambda d: d["state0"]["zones"][1].update(slab=[[1, 2]]), "slab[0]: frames 1..2 are not in zone DMA32"),
        (lambda d: d["state1"]["zones"].pop(0), "state1: has other zones or CPUs"),
        (lambda d: d["ops"].insert(0, []), "ops[0]: does not begin with 1"),
        (lambda d: d["ops"].insert(0, [3, 1]), "ops[0]: does not begin with 1"),
        (lambda d: d["ops"].insert(0, [1, 2]), "ops[0]: has 2 numbers, should have 4"),
        (lambda d: d["ops"].insert(0, [1, -1, 0, 5]), "ops[0]: -1 is not an allocation mask"),
        (lambda d: d["ops"].insert(0, [1, "a", 0, 5]), "ops[0][1]: is str, should be int"),
        (lambda d: d["ops"].insert(0, [0, 4097, 3]), "ops[0]: frame 4097 cannot be a block of order 3"),
        (lambda d: d["ops"].insert(0, [0, 4096, 0, 9]), "ops[0]: CPU 9: the machine has 4"),
        (lambda d: d["ops"].insert(0, [0, 1 << 40, 0, 0]), "is not in the machine's memory"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change, place: str) -> None:
    """The file, the field, what is wrong with it: in one line."""
    data = json.loads(SHORT)
    change(data)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(data))
    with pytest.raises(RecordingError) as caught:
        conform(path)
    one_line(caught.value, str(path), place.replace("\\\\", "\\"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no JSON"),
        (b"hello", "no JSON"),
        (b"\xff\xfe\x00", "not text"),
        (b"[1, 2]", "is list, not an object"),
        (b'{"state0": {"zones": []}}', "has no field 'meta'"),
        (b"[" * 100_000, "no JSON"),
        (b'{"meta": {}, "state0": {"zones": []}, "state1": {"zones": []}, "ops": []}', "no zone has memory"),
        (b"9" * 5000, "no JSON"),
        (b"\x1f\x8b\x08\x00", "cut off or damaged"),
        (b"\x1f\x8b" + b"x" * 50, "cut off or damaged"),
    ],
    ids=str,
)
def test_foreign_files(tmp_path: Path, content: bytes, said: str) -> None:
    """Anything that is no recording: text, bytes, other JSON, broken gzip."""
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        conform(path)
    one_line(caught.value, str(path), said)


def test_slub_recordings_are_told_apart(tmp_path: Path) -> None:
    """A recording of another allocator is refused with its reason."""
    path = tmp_path / "slub.json"
    data = json.loads(SHORT)
    path.write_text(json.dumps(data | {"ops": [[2, 1]]}))
    with pytest.raises(RecordingError, match="not a recording of the page allocator"):
        conform(path)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    """What cannot be read at all."""
    for path in (tmp_path, tmp_path / "none", ""):
        with pytest.raises(RecordingError) as caught:
            conform(path)
        one_line(caught.value)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch) -> None:
    """A small gzip file may unpack to gigabytes: reading stops."""
    monkeypatch.setattr("kmemlab.recording.MOST_BYTES", 1 << 16)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * (1 << 20)))
    with pytest.raises(RecordingError, match="unpacks to more than"):
        conform(path)


def test_a_real_recording_without_its_trace(tmp_path: Path) -> None:
    """Two dumps need the trace beside them."""
    data = json.loads(SHORT)
    del data["ops"]
    path = tmp_path / "alone.snap.json"
    path.write_text(json.dumps(data))
    with pytest.raises(RecordingError, match=r"the trace alone\.trace\.txt\.gz is not beside it"):
        conform(path)


def test_calls_of_a_kernel_that_would_have_stopped(tmp_path: Path) -> None:
    """A recording that gives pages back twice is not exact; it does not stop us."""
    data = json.loads(SHORT)
    frees = [op for op in data["ops"] if op[0] == 0]
    data["ops"] += frees * 3
    path = tmp_path / "twice.json"
    path.write_text(json.dumps(data))
    assert not conform(path).exact


PLACES = st.sampled_from(("meta", "state0", "state1", "ops"))
ODD = st.sampled_from(
    [None, True, -1, 0, 1, 7, 1 << 31, 1 << 40, 1 << 63, 10**400, 1.5, float("nan"), "", "x\ny", "1" * 5000, [], {},
     [[]], [[1, 2, 3]], {"a": 1}, {"x\ny": [1]}, {"0,0": [5]}, "999999", {"0": {}}, [[4096, 1 << 30]]]
)  # fmt: skip
FUZZ = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(place=PLACES, way=st.lists(st.integers(0, 400), min_size=1, max_size=7), odd=ODD, remove=st.booleans())
def test_any_field_may_be_odd(tmp_path: Path, place: str, way: list[int], odd, remove: bool) -> None:
    """Wherever a wrong value stands: it is read, or told in one line with file and field."""
    data = json.loads(SHORT)
    parent, key = data, place
    for step in way:
        here = parent[key]
        keys = list(here) if isinstance(here, dict) else list(range(len(here))) if isinstance(here, list) else []
        if not keys:
            break
        parent, key = here, keys[step % len(keys)]
    if remove:
        del parent[key]
    else:
        parent[key] = odd
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(data))
    try:
        conform(path)
    except RecordingError as error:
        one_line(error, str(path))


@FUZZ
@given(cut=st.integers(0, LESSON.stat().st_size - 1), flip=st.integers(0, 255))
def test_any_byte_may_be_damaged(tmp_path: Path, cut: int, flip: int) -> None:
    """A gzip file cut off, or with one byte changed: told as such (or, changed where gzip looks away, read)."""
    raw = LESSON.read_bytes()
    path = tmp_path / "damaged.json.gz"
    for content in (raw[:cut], raw[:cut] + bytes([raw[cut] ^ flip]) + raw[cut + 1 :]):
        path.write_bytes(content)
        try:
            load_recording(path)
        except RecordingError as error:
            one_line(error, str(path))
        else:
            assert zlib.crc32(gzip.decompress(content)) == zlib.crc32(gzip.decompress(raw))
