"""Recordings of real kernels: read, checked field by field, turned into zones.

A recording holds the allocator's whole state, the calls that followed with what each returned, and the
state at the end. A file that is not what it should be gets one line: the file, the field, what is wrong.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmemlab.kernels import LINUX_6_1, LINUX_6_1_I386
from kmemlab.mm_init import Found, default_sysctls, pageblocks
from kmemlab.mmzone import (
    MAX_ORDER,
    MIGRATE_TYPES,
    NR_PCP_LISTS,
    PAGEBLOCK_ORDER,
    MemMap,
    PerCpuPages,
    Zone,
    pindex_to_order,
)

__all__ = [
    "Recording",
    "RecordingError",
    "find_recording",
    "load_recording",
    "read_json",
    "read_unpacked",
    "zones_from_state",
]

MOST_BYTES = 1 << 28  # what a file may unpack to: fifty times the largest recording


class RecordingError(ValueError):
    """A recording that cannot be used; the text names the file and the field."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording in memory. ``kind`` is "buddy" or "slub" (calls listed in ``ops``) or "real" (ftrace text
    beside it); for "slub" ``state0`` has the fields of the cache."""

    path: Path
    kind: str
    meta: dict[str, Any]
    state0: dict[str, Any]
    state1: dict[str, Any]
    ops: list[list[int]]

    @property
    def name(self) -> str:
        """The file's name without its endings."""
        return self.path.name.split(".")[0]

    @property
    def sysctls(self) -> dict[str, Any]:
        """The kernel's ``vm.`` settings; without those that could not be read (-1)."""
        found = {key: self.meta.get(key, -1) for key in default_sysctls(LINUX_6_1)}
        ratio = found.pop("lowmem_reserve_ratio")
        found = {key: value for key, value in found.items() if isinstance(value, int) and value >= 0}
        if isinstance(ratio, list) and all(isinstance(r, int) and r >= 0 for r in ratio):
            found["lowmem_reserve_ratio"] = list(ratio)
        return found


def find_recording(name: str | Path) -> Path:
    """The file of a recording given by path or by its bare name ("256M-a-21").

    Names are looked for where lessons keep theirs, and in the checkout's tests.
    """
    path = Path(name)
    if path.is_file():
        return path
    here = Path(__file__).resolve().parent
    folders = [
        Path.cwd() / "recordings",
        here / "_lessons" / "recordings",
        here.parent / "lessons" / "recordings",
        *(here.parent / "tests" / "kernel" / "recordings" / kind for kind in ("buddy", "slub", "real", "reclaim")),
    ]
    for folder in folders:
        for ending in (".json.gz", ".snap.json.gz", ".json"):
            if (folder / f"{path.name}{ending}").is_file():
                return folder / f"{path.name}{ending}"
    raise RecordingError(f"{name}: no such recording (a file, or a name such as 256M-a-21)")


class _Field:
    """A value inside a recording together with the way to it, for messages."""

    def __init__(self, file: Path, where: str, value: Any) -> None:
        self.file, self.where, self.value = file, where, value

    def fail(self, text: str) -> RecordingError:
        said = f"{self.where}: {text}"  # names out of the file: whatever is in them, the message stays one line
        if len(said) > 300:
            said = f"{said[:200]} ... {said[-90:]}"
        return RecordingError(f"{self.file}: " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in said))

    def key(self, name: str, kind: type, default: Any = None) -> _Field:
        """The member ``name``, which must be of ``kind``."""
        if not isinstance(self.value, dict):
            raise self.fail(f"is {type(self.value).__name__}, not an object")
        if name not in self.value:
            if default is not None:
                return _Field(self.file, f"{self.where}.{name}", default)
            raise self.fail(f"has no field {name!r}")
        return _Field(self.file, f"{self.where}.{name}", self.value[name]).of(kind)

    def of(self, kind: type) -> _Field:
        if not isinstance(self.value, kind) or (kind is int and isinstance(self.value, bool)):
            raise self.fail(f"is {type(self.value).__name__}, should be {kind.__name__}")
        return self

    def number(self, low: int = 0, high: int = 1 << 52) -> int:
        self.of(int)
        if not low <= self.value <= high:
            raise self.fail(f"is {self.value}, outside {low}..{high}")
        return int(self.value)

    def numbers(self, length: int | None = None, low: int = 0) -> list[int]:
        self.of(list)
        if length is not None and len(self.value) < length:
            raise self.fail(f"has {len(self.value)} numbers, should have {length}")
        for i, each in enumerate(self.value):
            _Field(self.file, f"{self.where}[{i}]", each).number(low)
        return list(self.value)


def read_unpacked(path: Path) -> bytes:
    """A file's bytes, unpacked if it is a gzip file. Errors: RecordingError, one line."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(MOST_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise RecordingError(f"{path}: is cut off or damaged (gzip)") from None
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(raw) > MOST_BYTES:
        raise RecordingError(f"{path}: unpacks to more than {MOST_BYTES >> 20} MiB: not a recording")
    return raw


def read_json(path: Path) -> Any:
    """What a JSON file holds, unpacked if need be. Errors: RecordingError, one line."""
    raw = read_unpacked(path)
    try:
        return json.loads(raw)
    except UnicodeDecodeError:
        raise RecordingError(f"{path}: is not a recording (not text)") from None
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}: is not a recording (no JSON: {error})") from None


def load_recording(name: str | Path) -> Recording:
    """Read a recording by path or name. Errors: RecordingError, one line."""
    path = find_recording(name)
    top = _Field(path, "recording", read_json(path))
    if isinstance(top.value, dict) and "cache" in top.value:
        return _slub_recording(path, top)
    meta = top.key("meta", dict).value
    state0, state1 = top.key("state0", dict), top.key("state1", dict)
    state0.key("zones", list)
    state1.key("zones", list)
    kind = "buddy" if "ops" in top.value else "real"
    ops: list[list[int]] = []
    if kind == "buddy":
        ops = top.key("ops", list).value
        _check_ops(path, ops)
    return Recording(path, kind, meta, state0.value, state1.value, ops)


def _slub_recording(path: Path, top: _Field) -> Recording:
    """A recording of one slab cache: its fields in ``state0``, what was left of it in ``state1``."""
    meta, cache, final = (top.key(name, dict).value for name in ("meta", "cache", "final"))
    ops = top.key("ops", list).value
    cpus = _Field(path, "recording.meta", meta).key("online_cpus", int).number(1, 256)
    objects = _Field(path, "recording.cache", cache).key("objects", int).number(1, 1 << 15)
    for i, op in enumerate(ops):
        field = _Field(path, f"ops[{i}]", op).of(list)
        if not op or op[0] not in (0, 1, 2, 3):
            raise field.fail("does not begin with 0 (free), 1 (alloc), 2 (state) or 3 (slabs given back)")
        if op[0] in (0, 1):
            _check_slub_call(field, op, cpus, objects)
        elif len(op) < 2 or not isinstance(op[1], dict if op[0] == 2 else int):
            raise field.fail("has no state" if op[0] == 2 else "has no number of slabs")
    ring = top.key("random_seq_index", list, []).numbers()
    if sorted(ring) != list(range(len(ring))) or len(ring) not in (0, objects):
        raise RecordingError(f"{path}: recording.random_seq_index: is not an order of {objects} objects")
    return Recording(path, "slub", meta, cache | {"random_seq_index": ring}, final, ops)


def _check_slub_call(field: _Field, op: list[Any], cpus: int, objects: int) -> None:
    first = _Field(field.file, field.where, op[:3])
    first.numbers(3)
    if op[1] >= 1 << 34 or op[2] >= objects:
        raise field.fail(f"object {op[2]} of slab {op[1]}: there is none")
    if cpus > 1 and (len(op) < 4 + op[0] or not isinstance(op[-1], int) or not 0 <= op[-1] < cpus):
        raise field.fail(f"does not tell which of {cpus} CPUs")
    if op[0] and len(op) > 3 and op[3] is not None:
        fresh = _Field(field.file, f"{field.where}[3]", op[3])
        order = fresh.key("order", list)
        if sorted(order.numbers()) != list(range(len(order.value))) or not order.value:
            raise order.fail("is not an order of objects")


def _check_ops(path: Path, ops: list[Any]) -> None:
    for i, op in enumerate(ops):
        field = _Field(path, f"ops[{i}]", op).of(list)
        if not op or op[0] not in (0, 1):
            raise field.fail("does not begin with 1 (alloc) or 0 (free): not a recording of the page allocator")
        field.numbers(4 if op[0] else 3, low=-1)
        order = op[2]
        if not 0 <= order < 64:
            raise field.fail(f"order {order} is outside 0..63")
        if op[0] and not 0 <= op[1] < 1 << 32:
            raise field.fail(f"{op[1]} is not an allocation mask")
        if not op[0] and (order >= MAX_ORDER or op[1] & (1 << order) - 1):
            raise field.fail(f"frame {op[1]} cannot be a block of order {order}")


def zones_from_state(recording: Recording, which: str, memmap: MemMap) -> Found:
    """The zones of ``state0`` or ``state1``, lists in their recorded order. Errors: RecordingError."""
    state = recording.state0 if which == "state0" else recording.state1
    fields = _Field(recording.path, which, state).key("zones", list)
    all_fields = [_Field(recording.path, f"{which}.zones[{i}]", z) for i, z in enumerate(fields.value)]
    populated = [f for f in all_fields if f.key("managed", int).number()]
    if not populated:
        raise fields.fail("no zone has memory")
    top = max(f.key("start_pfn", int).number() + f.key("spanned", int).number(high=1 << 36) for f in populated)
    if top > 1 << 34:
        raise fields.fail(f"memory up to frame {top}: more than 64 TiB")
    types = bytearray(b"\1") * (pageblocks(top) + 2)
    seen: set[int] = set()
    zones = [_zone(f, types, memmap, seen) for f in populated]
    if len({zone.idx for zone in zones}) < len(zones):
        raise fields.fail("two zones have the same idx")
    if len({len(zone.pcps) for zone in zones}) > 1:
        raise fields.fail("the zones do not tell of the same number of CPUs")
    empty = [_empty_zone(f) for f in all_fields if not f.value["managed"]]
    profile = LINUX_6_1_I386 if any(zone.name == "HighMem" for zone in (*zones, *empty)) else LINUX_6_1
    if unknown := {zone.name for zone in zones} - set(profile.zone_names):
        raise RecordingError(f"{recording.path}: {which}: no zone {', '.join(sorted(unknown))} in {profile.name}")
    return Found(profile, sorted(zones, key=lambda zone: zone.idx), empty, {}, "")


def _zone_name(f: _Field) -> str:
    name = f.key("name", str)
    if not (name.value.isalnum() and len(name.value) <= 8):
        raise name.fail(f"{name.value!r} is not the name of a zone")
    return str(name.value)


def _empty_zone(f: _Field) -> Zone:
    zone = Zone(_zone_name(f), f.key("idx", int).number(high=15), 0, 0, 0, 0)
    zone.wmark = f.key("wmark", list).numbers(3)[:3]
    zone.lowmem_reserve = f.key("lowmem_reserve", list, []).numbers()
    return zone


def _zone(f: _Field, types: bytearray, memmap: MemMap, seen: set[int]) -> Zone:
    size = {name: f.key(name, int).number() for name in ("idx", "start_pfn", "spanned", "present", "managed")}
    zone = Zone(_zone_name(f), **size)
    zone.wmark = f.key("wmark", list).numbers(3)[:3]
    zone.watermark_boost = f.key("watermark_boost", int).number()
    zone.lowmem_reserve = f.key("lowmem_reserve", list).numbers(4)
    zone.nr_reserved_highatomic = f.key("nr_reserved_highatomic", int).number()
    flags = f.key("flags", int).number()
    zone.boosted, zone.reclaim_active = bool(flags & 1), bool(flags & 2)
    zone.nr_free_pages = f.key("nr_free_pages", int).number(low=-(1 << 40))
    zone.stat_threshold = f.key("stat_threshold", int).number(high=125)
    zone.pageblock_mt = types
    _fill_pageblocks(f.key("pageblock_mt", dict), zone, seen)
    _fill_free_lists(f.key("free", dict), zone)
    _fill_pcps(f, zone, memmap)
    holes = _runs(f.key("hole", list, []), zone)
    zone.spans = _complement(zone, holes)
    zone.reserved = _runs(f.key("reserved", list, []), zone)
    zone.slab = _runs(f.key("slab", list, []), zone)
    for first, count in _runs(f.key("lru_or_movable", list, []), zone):
        zone.lru.update(range(first, first + count))
    return zone


def _pfn(f: _Field, key: str, zone: Zone) -> int:
    try:
        pfn = int(key)
    except ValueError:
        raise f.fail(f"{key!r} is not a page frame number") from None
    if not zone.start_pfn >> PAGEBLOCK_ORDER << PAGEBLOCK_ORDER <= pfn < zone.end_pfn:
        raise f.fail(f"frame {pfn} is not in zone {zone.name}")
    return pfn


def _fill_pageblocks(f: _Field, zone: Zone, seen: set[int]) -> None:
    """A pageblock cut by a zone border is listed with both zones; it has the type the lower zone tells."""
    for key, value in f.value.items():
        mt = _Field(f.file, f"{f.where}.{key}", value).number(0, MIGRATE_TYPES - 1)
        block = _pfn(f, key, zone) >> PAGEBLOCK_ORDER
        if block not in seen:
            zone.pageblock_mt[block] = mt
        seen.add(block)


def _fill_free_lists(f: _Field, zone: Zone) -> None:
    for key, value in f.value.items():
        here = _Field(f.file, f"{f.where}[{key!r}]", value)
        try:
            order, mt = map(int, key.split(","))
        except ValueError:
            raise here.fail("the list's name is not 'order,migratetype'") from None
        if not (0 <= order < MAX_ORDER and 0 <= mt < MIGRATE_TYPES):
            raise here.fail("no such list")
        for pfn in reversed(here.numbers()):
            if not zone.spans_pfn(pfn) or pfn & (1 << order) - 1 or pfn in zone.buddy:
                raise here.fail(f"frame {pfn} cannot be a free block of order {order} in zone {zone.name}")
            zone.free_area[order][mt][pfn] = None
            zone.buddy[pfn] = order << 3 | mt


def _fill_pcps(f: _Field, zone: Zone, memmap: MemMap) -> None:
    by_cpu = f.key("pcps", dict, {})
    if not by_cpu.value:
        by_cpu = _Field(f.file, f.where, {"0": f.value})
    for cpu, key in enumerate(sorted(by_cpu.value, key=str)):
        here = by_cpu.key(key, dict)
        lists = here.key("pcp", dict)
        pcp = PerCpuPages(cpu, lists.key("high", int).number(), lists.key("batch", int).number(1))
        pcp.free_factor = lists.key("free_factor", int).number(0, 63)
        pcp.vm_stat_diff = here.key("vm_stat_diff_free", int).number(low=-128)
        for pindex, entries in lists.key("lists", dict).value.items():
            _fill_pcp_list(_Field(f.file, f"{lists.where}.lists[{pindex!r}]", entries), pindex, pcp, zone, memmap)
        if pcp.count != lists.key("count", int).number():
            raise lists.fail(f"count is {lists.value['count']}, the lists hold {pcp.count} pages")
        zone.pcps.append(pcp)
    zone.pcp = zone.pcps[0]


def _fill_pcp_list(f: _Field, key: str, pcp: PerCpuPages, zone: Zone, memmap: MemMap) -> None:
    if not key.isdigit() or not 0 <= int(key) < NR_PCP_LISTS:
        raise f.fail("no such per-CPU list")
    for entry in reversed(f.of(list).value):
        pfn, mt = _Field(f.file, f.where, entry).numbers(2)[:2]
        if not zone.spans_pfn(pfn) or not 0 <= mt < MIGRATE_TYPES:
            raise f.fail(f"[{pfn}, {mt}] is not a page of zone {zone.name}")
        page = memmap[pfn]
        page.zone, page.mt = zone, mt
        pcp.lists[int(key)].append(page)
        pcp.count += 1 << pindex_to_order(int(key))


def _runs(f: _Field, zone: Zone) -> list[tuple[int, int]]:
    runs = []
    for i, entry in enumerate(f.of(list).value):
        here = _Field(f.file, f"{f.where}[{i}]", entry)
        first, count = here.numbers(2)[:2]
        if not (zone.start_pfn <= first and first + count <= zone.end_pfn):
            raise here.fail(f"frames {first}..{first + count - 1} are not in zone {zone.name}")
        runs.append((first, count))
    return runs


def _complement(zone: Zone, holes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    spans, pfn = [], zone.start_pfn
    for first, count in sorted(holes):
        if first > pfn:
            spans.append((pfn, first - pfn))
        pfn = max(pfn, first + count)
    if pfn < zone.end_pfn:
        spans.append((pfn, zone.end_pfn - pfn))
    return spans
