"""The bytes around one object: guards, payload, free pointer, tracks, padding, and which of them are wrong."""

from __future__ import annotations

from typing import Any

from kmemlab.slub_def import SLAB_POISON, SLAB_RED_ZONE, SLAB_STORE_USER, TRACK

__all__ = ["byte_rows", "bytes_twin", "fields_of"]

MOST = 512  # bytes shown


def fields_of(m: Any, p: int) -> tuple[Any, int, list[tuple[str, int, int, int | None]]] | None:
    """(slab, first address, [(field, start, bytes, what each should be or None)]) of the object at ``p``.

    Starts are addresses. None where no object begins.
    """
    slab = m.virt_to_slab(p)
    if slab is None or slab.index_of(p) < 0:
        return None
    s = slab.cache
    free = p in m.free_objects_of(slab)
    red = 0xBB if free else 0xCC
    fields: list[tuple[str, int, int, int | None]] = []
    guarded = bool(s.flags & SLAB_RED_ZONE)
    if s.red_left_pad:
        fields.append(("left red zone", p - s.red_left_pad, s.red_left_pad, red))
    poisoned = bool(s.flags & SLAB_POISON) and free and not s.ctor
    if poisoned:
        fields += [("object (poison)", p, s.object_size - 1, 0x6B), ("end poison", p + s.object_size - 1, 1, 0xA5)]
    elif s.offset < s.object_size and free:
        fields += [("object", p, s.offset, None), ("free pointer", p + s.offset, 8, None),
                   ("object", p + s.offset + 8, s.object_size - s.offset - 8, None)]  # fmt: skip
    else:
        fields.append(("object", p, s.object_size, None))
    if s.inuse > s.object_size:
        fields.append(("right red zone" if guarded else "alignment padding", p + s.object_size, s.inuse - s.object_size,
                       red if guarded else 0x5A if s.flags & SLAB_POISON else None))  # fmt: skip
    if s.offset >= s.inuse:
        fields.append(("free pointer", p + s.offset, 8, None))
    end = s.info_end
    if s.flags & SLAB_STORE_USER:
        fields.append(("tracks: who allocated, who freed", p + end, 2 * TRACK, None))
        end += 2 * TRACK
    rest = s.size - s.red_left_pad - end
    if rest > 0:
        fields.append(("padding", p + end, rest, 0x5A if s.flags & SLAB_POISON and not s.flags & 0x1000 else None))
    return slab, p - s.red_left_pad, [f for f in fields if f[2] > 0]


def byte_rows(m: Any, p: int) -> dict[str, Any]:
    """What the browser draws: 16 bytes a row with the field of each, and whether it is wrong."""
    found = fields_of(m, p)
    if found is None:
        return {"head": f"{p:016x}: no object begins here", "rows": [], "fields": []}
    slab, first, fields = found
    data = m.read(first, min(slab.cache.size, MOST))
    kinds = [-1] * len(data)
    wrong = [False] * len(data)
    for number, (_, start, count, want) in enumerate(fields):
        for at in range(start - first, min(start - first + count, len(data))):
            kinds[at] = number
            wrong[at] = want is not None and data[at] != want
    rows = []
    for at in range(0, len(data), 16):
        cells = [[f"{b:02x}", kinds[at + i], int(wrong[at + i])] for i, b in enumerate(data[at : at + 16])]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in data[at : at + 16])
        rows.append({"addr": f"{first + at:016x}", "cells": cells, "text": text})
    names = [f"{name}{'' if want is None else f', should be {want:02x}'}" for name, _, _, want in fields]
    return {"head": bytes_twin(m, p), "rows": rows, "fields": names}


def bytes_twin(m: Any, p: int) -> str:
    """The bytes in words: what is wrong, or that nothing is."""
    found = fields_of(m, p)
    if found is None:
        return f"{p:016x}: no object begins here"
    slab, _, fields = found
    state = "free" if p in m.free_objects_of(slab) else "in use"
    bad = []
    for name, start, count, want in fields:
        data = m.read(start, count)
        off = [i for i, b in enumerate(data) if want is not None and b != want]
        if off:
            some = data[off[0] : off[-1] + 1].hex(" ")
            bad.append(f"{name} overwritten at offset {start + off[0] - p}: {some} (should be {want:02x})")
    guarded = any(want is not None for _, _, _, want in fields)
    fine = "every guard is as it should be" if guarded else "this cache has no guards"
    return f"object {slab.index_of(p)} of slab {slab.pfn}, {state}: {'; '.join(bad) or fine}"
