"""SlabView: the next object it names is the one the machine gives; words, drawing and hands agree."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kmemlab import GFP_KERNEL, Machine
from kmemlab_widgets import SlabView
from kmemlab_widgets.slabview_bytes import byte_rows, bytes_twin
from kmemlab_widgets.slabview_draw import draw, free_of, headline, next_object, subline, twin


def yard(cpus: int = 1, size: int = 256, **options: Any) -> tuple[Machine, Any]:
    m = Machine("linux-6.1", memory="64M", cpus=cpus, **{"cmdline": "slab_nomerge", **options})
    return m, m.kmem_cache_create("conn", size, 0, 0, None)


def used(m: Machine, c: Any, n: int = 200, step: int = 3) -> list[Any]:
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(n)]
    for p in objects[::step]:
        m.kmem_cache_free(c, p)
    return objects


@pytest.mark.parametrize("options", [{}, {"config": ("SLAB_FREELIST_RANDOM",)}, {"cmdline": "slub_debug=FZPU"}])
def test_the_next_object_is_the_one_given(options: dict[str, Any]) -> None:
    m, c = yard(**options)
    used(m, c)
    for _ in range(90):
        told = next_object(m.slab_snapshot(c))
        p = m.kmem_cache_alloc(c, GFP_KERNEL)
        slab = m.virt_to_slab(p)
        if told is None:
            assert slab.inuse == (1 if c.debug else slab.objects)
        else:
            assert told[:2] == (slab.pfn, slab.index_of(p))
            assert f"object {told[1]} of slab {told[0]}" in f"object {slab.index_of(p)} of slab {slab.pfn}"


def test_words() -> None:
    m, c = yard()
    assert headline(m.slab_snapshot(c)) == "conn: no slabs yet, the first allocation builds one"
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(1000)]
    for p in objects:
        m.kmem_cache_free(c, p)
    s = m.slab_snapshot(c)
    shape = "256 bytes every 256, 16 in a slab of 1 page"
    assert subline(s) == f"{shape} · 12 slabs, 0 in use, 192 free · 12 pages could go back"
    cpu = f"CPU 0: cpu slab {s.cpus[0].slab.pfn}, 16 on its list, cpu partial 6"
    sums = "12 slabs of 1 page, 0 objects in use, 192 free."
    assert twin(s).splitlines()[1] == f"{sums} {cpu}; node partial 5, full 0; 12 pages could go back."


def test_merged_names_are_listed_and_escaped() -> None:
    m = Machine("linux-6.1", memory="64M")
    m.kmem_cache_create("<b>conn</b>", 60, 0, 0, None)
    c = m.kmem_cache_create("timer", 64, 0, 0, None)
    m.kmem_cache_alloc(c, GFP_KERNEL)
    panel = SlabView(m, "timer")
    assert "Shared by vmap_area, <b>conn</b>, timer." in repr(panel)
    wide = json.loads(panel.view_data)["svg"]["868"]
    assert "one cache for:" in wide
    assert "&lt;b&gt;conn&lt;/b&gt;, timer" in wide
    assert "<b>" not in wide


@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize(("cpus", "size"), [(1, 256), (4, 256), (1, 8), (1, 4000)])
def test_every_object_has_its_place(width: int, cpus: int, size: int) -> None:
    m, c = yard(cpus, size)
    for cpu in range(cpus):
        m.cpu = cpu
        used(m, c, 60)
    s = m.slab_snapshot(c)
    svg, boxes = draw(s, width)
    assert svg == draw(s, width)[0]
    by_pfn = {slab.pfn: slab for cpu in s.cpus for slab in ([cpu.slab] if cpu.slab else []) + list(cpu.partial)}
    by_pfn |= {slab.pfn: slab for slab in s.node_partial}
    assert {box.pfn for box in boxes} >= {cpu.slab.pfn for cpu in s.cpus if cpu.slab}
    for box in boxes:
        assert box.free == free_of(s, by_pfn[box.pfn])
        assert box.x + min(box.cols, box.objects) * box.cell <= width
    assert (">1<" in svg) == (size >= 256)  # places are numbered where there is room


def test_hands() -> None:
    m, c = yard()
    p = m.kmem_cache_alloc(c, GFP_KERNEL)
    panel = SlabView(m, c)
    assert panel.address(m.virt_to_slab(p).pfn, 0) == p
    panel._told(panel, {"free": [m.virt_to_slab(p).pfn, 0]}, [])
    assert p not in m.live
    panel._told(panel, {"alloc": True}, [])
    assert p in m.live
    panel._told(panel, {"look": [m.virt_to_slab(p).pfn, 0]}, [])
    assert "object 0 of slab" in json.loads(panel.view_data)["bytes"]["head"]
    panel._told(panel, {"free": [m.virt_to_slab(p).pfn, 0]}, [])
    panel._told(panel, {"free": [m.virt_to_slab(p).pfn, 0]}, [])
    assert json.loads(panel.view_data)["said"].startswith("the kernel stopped: ")


def test_bytes_name_what_is_wrong() -> None:
    m = Machine("linux-6.1", memory="64M", cmdline="slub_debug=FZPU")
    c = m.kmem_cache_create("oracle-bug", 100, 0, 0, None)
    p = m.kmem_cache_alloc(c, GFP_KERNEL)
    assert bytes_twin(m, p).endswith("in use: every guard is as it should be")
    m.write(p + 100, b"AB")
    assert bytes_twin(m, p).endswith("right red zone overwritten at offset 100: 41 42 (should be cc)")
    rows = byte_rows(m, p)
    assert [cell[0] for row in rows["rows"] for cell in row["cells"] if cell[2]] == ["41", "42"]
    assert sum(len(row["cells"]) for row in rows["rows"]) == c.size
    assert all(cell[1] >= 0 for row in rows["rows"] for cell in row["cells"])
    assert "no object begins here" in bytes_twin(m, p + 4)
    plain = Machine("linux-6.1", memory="64M")
    assert bytes_twin(plain, plain.kmalloc(64, GFP_KERNEL)).endswith("in use: this cache has no guards")


def test_wrong_arguments() -> None:
    m, _ = yard()
    with pytest.raises(ValueError, match="no slab cache 'x'"):
        SlabView(m, "x")
    with pytest.raises(TypeError, match="wants a Machine"):
        SlabView("m", "x")
