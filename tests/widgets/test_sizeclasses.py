"""SizeClasses: what it says is what the machine gives; the drawing follows the words."""

from __future__ import annotations

import json

import pytest
from traitlets import TraitError

from kmemlab import GFP_KERNEL, Machine
from kmemlab.size_classes import LADDERS
from kmemlab_widgets import SizeClasses
from kmemlab_widgets.sizeclasses import draw, headline, subline, twin

NOW, THEN = LADDERS["linux-6.1"], LADDERS["linux-2.6.11"]
EDGES = [0, 1, 8, 9, 64, 65, 96, 97, 100, 128, 129, 192, 193, 520, 4096, 4097, 8192, 8193, 200_100, 4194304, 4194305]


@pytest.mark.parametrize("size", EDGES)
def test_it_says_what_the_machine_gives(size: int) -> None:
    m = Machine("linux-6.1", memory="64M")
    p = m.kmalloc(size, GFP_KERNEL)
    words = headline(NOW, size)
    if not p:
        assert "gets NULL: 4,194,304 bytes are the most" in words
        return
    given = m.ksize(p)
    slab = m.virt_to_slab(p)
    if not given:
        assert "ZERO_SIZE_PTR (0x10)" in words
    elif given == size:
        assert words.endswith(f"gets {given:,} bytes: it fits exactly")
    else:
        assert f"gets {given:,} bytes: {given - size:,} of them, " in words
    if slab:
        assert subline(NOW, size).startswith(f"{slab.cache.name} of Linux 6.1")


def test_the_picture_of_the_post() -> None:
    assert headline(NOW, 520) == "kmalloc(520) gets 1,024 bytes: 504 of them, 49 %, stay unused"
    assert twin(NOW, 520).splitlines()[1] == "kmalloc-1k, linux-6.1. Next class edge below: 512."
    assert headline(THEN, 1) == "kmalloc(1) gets 32 bytes: 31 of them, 97 %, stay unused"
    assert "NULL: 131,072 bytes" in headline(THEN, 131073)
    assert headline(THEN, 0).startswith("kmalloc(0) gets 32 bytes")
    assert subline(THEN, 100, "dma").startswith("size-128(DMA) of Linux 2.6.11")


@pytest.mark.parametrize(("family", "name"), [("normal", "kmalloc-"), ("cg", "kmalloc-cg-"), ("rcl", "kmalloc-rcl-"),
                                              ("dma", "dma-kmalloc-")])  # fmt: skip
def test_families_have_their_own_caches(family: str, name: str) -> None:
    assert subline(NOW, 100, family).startswith(f"{name}128 of")
    assert subline(NOW, 9000, family).startswith("pages of order 2 of")


@pytest.mark.parametrize("ladder", [NOW, THEN], ids=["6.1", "2.6.11"])
@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize("size", EDGES)
def test_the_drawing_has_the_words(ladder: object, width: int, size: int) -> None:
    svg = draw(ladder, size, "normal", width)  # type: ignore[arg-type]
    assert f'width="{width}"' in svg
    assert headline(ladder, size).replace("'", "&#x27;") in svg.replace("&#39;", "&#x27;")  # type: ignore[arg-type]
    assert "NULL" in svg
    assert draw(ladder, size, "normal", width) == svg  # type: ignore[arg-type]


def test_it_follows_the_machine() -> None:
    m = Machine("linux-6.1", memory="64M")
    panel = SizeClasses(m)
    assert panel.last_size() is None
    m.kmalloc(300, GFP_KERNEL)
    assert panel.last_size() == 300
    panel.refresh()
    assert "last call" in json.loads(panel.view_data)["base"]["linux-6.1"]["868"]
    m.alloc_pages(GFP_KERNEL, 0)
    assert panel.last_size() is None
    m.kmem_cache_alloc(m.kmem_cache_create("mine", 300, 0, 0, lambda p: None), GFP_KERNEL)
    assert panel.last_size() is None


def test_without_a_machine_and_wrong_arguments() -> None:
    panel = SizeClasses(size=8193)
    assert repr(panel).startswith("kmalloc(8,193) gets 16,384 bytes")
    data, _ = panel._repr_mimebundle_()
    assert "8,193" in data["text/plain"]
    assert "<img" in data["text/html"]
    for arguments, words in (({"size": -1}, "size=-1"), ({"kernel": "x"}, "kernel='x'"), ({"family": "x"}, "family")):
        with pytest.raises(ValueError, match=words):
            SizeClasses(**arguments)  # type: ignore[arg-type]


def test_the_saved_picture_stands_where_the_handle_does() -> None:
    panel = SizeClasses()
    panel.size, panel.kernel, panel.family = 520, "linux-2.6.11", "dma"
    assert repr(panel).splitlines()[1] == "size-1024(DMA), linux-2.6.11. Next class edge below: 512."
    panel.size = 9
    data, _ = panel._repr_mimebundle_()
    assert data["text/plain"].startswith("kmalloc(9) gets 32 bytes")
    assert "kmalloc(9)%20" in data["text/html"] or "kmalloc(9) " in data["text/html"].split("src=")[1]


def test_a_panel_that_does_not_follow_keeps_its_moment() -> None:
    m = Machine("linux-6.1", memory="64M")
    panel = SizeClasses(m, follow=False)
    m.kmalloc(300, GFP_KERNEL)
    panel.size = 520
    assert repr(panel).startswith("kmalloc(520)")
    assert "last call" not in panel._repr_mimebundle_()[0]["text/html"]


@pytest.mark.parametrize(("name", "value"), [("kernel", "linux-9"), ("family", "x"), ("size", -1), ("size", 9 << 20)])
def test_what_the_panel_does_not_have_cannot_be_set(name: str, value: object) -> None:
    with pytest.raises(TraitError, match=name):
        setattr(SizeClasses(), name, value)


def test_the_second_line_names_the_least_and_the_most() -> None:
    assert subline(NOW, 520) == "kmalloc-1k of Linux 6.1 · gives 8 bytes at least, 4,194,304 at most"
    assert subline(THEN, 131073) == "NULL of Linux 2.6.11 · gives 32 bytes at least, 131,072 at most"
