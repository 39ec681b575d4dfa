"""``gfp_t``: the word that tells the page allocator where it may look and what it may do.

Kernel: include/linux/gfp_types.h (the bits), include/linux/gfp.h (zone and mobility),
lib/vsprintf.c and include/trace/events/mmflags.h (a mask as text).

The names of this module are those of x86-64 6.1; ``FLAGS[kernel]`` has the table of every kernel known.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "FLAGS",
    "GFP_ATOMIC",
    "GFP_DMA",
    "GFP_DMA32",
    "GFP_HIGHUSER",
    "GFP_HIGHUSER_MOVABLE",
    "GFP_KERNEL",
    "GFP_KERNEL_ACCOUNT",
    "GFP_NOFS",
    "GFP_NOIO",
    "GFP_NOWAIT",
    "GFP_TRANSHUGE",
    "GFP_TRANSHUGE_LIGHT",
    "GFP_USER",
    "MIGRATE_NAMES",
    "TABLE_6_1",
    "__GFP_ACCOUNT",
    "__GFP_ATOMIC",
    "__GFP_COMP",
    "__GFP_DIRECT_RECLAIM",
    "__GFP_DMA",
    "__GFP_DMA32",
    "__GFP_FS",
    "__GFP_HARDWALL",
    "__GFP_HIGH",
    "__GFP_HIGHMEM",
    "__GFP_IO",
    "__GFP_KSWAPD_RECLAIM",
    "__GFP_MEMALLOC",
    "__GFP_MOVABLE",
    "__GFP_NOFAIL",
    "__GFP_NOMEMALLOC",
    "__GFP_NORETRY",
    "__GFP_NOWARN",
    "__GFP_RECLAIM",
    "__GFP_RECLAIMABLE",
    "__GFP_RETRY_MAYFAIL",
    "__GFP_THISNODE",
    "__GFP_WRITE",
    "__GFP_ZERO",
    "__GFP_ZEROTAGS",
    "Decoded",
    "decode",
    "gfp_migratetype",
    "gfp_t",
    "gfp_zone",
    "gfpflags_allow_blocking",
    "parse_gfp_flags",
    "show_gfp_flags",
]

MIGRATE_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")


class gfp_t(int):  # noqa: N801 - the kernel's own name of the type
    """An allocation mask: an ``int`` that prints as the kernel would print it."""

    __slots__ = ()

    def __or__(self, other: int) -> gfp_t:
        return gfp_t(int.__or__(self, other))

    __ror__ = __or__

    def __and__(self, other: int) -> gfp_t:
        return gfp_t(int.__and__(self, other))

    __rand__ = __and__

    def __xor__(self, other: int) -> gfp_t:
        return gfp_t(int.__xor__(self, other))

    def __invert__(self) -> gfp_t:
        return gfp_t(int.__xor__(self, 0xFFFFFFFF))

    def __repr__(self) -> str:
        return f"{show_gfp_flags(self) or 'none'} ({int(self):#x})"

    __str__ = __repr__


# name -> bits. A combination is written as the kernel writes it, from names above it.
_BITS_6_1 = {
    "__GFP_DMA": 0x01,
    "__GFP_HIGHMEM": 0x02,
    "__GFP_DMA32": 0x04,
    "__GFP_MOVABLE": 0x08,
    "__GFP_RECLAIMABLE": 0x10,
    "__GFP_HIGH": 0x20,
    "__GFP_IO": 0x40,
    "__GFP_FS": 0x80,
    "__GFP_ZERO": 0x100,
    "__GFP_ATOMIC": 0x200,
    "__GFP_DIRECT_RECLAIM": 0x400,
    "__GFP_KSWAPD_RECLAIM": 0x800,
    "__GFP_WRITE": 0x1000,
    "__GFP_NOWARN": 0x2000,
    "__GFP_RETRY_MAYFAIL": 0x4000,
    "__GFP_NOFAIL": 0x8000,
    "__GFP_NORETRY": 0x10000,
    "__GFP_MEMALLOC": 0x20000,
    "__GFP_COMP": 0x40000,
    "__GFP_NOMEMALLOC": 0x80000,
    "__GFP_HARDWALL": 0x100000,
    "__GFP_THISNODE": 0x200000,
    "__GFP_ACCOUNT": 0x400000,
    "__GFP_ZEROTAGS": 0x800000,
    # Bits that exist only with KASAN_HW_TAGS or LOCKDEP, which Debian's kernel lacks.
    "__GFP_SKIP_ZERO": 0,
    "__GFP_SKIP_KASAN_UNPOISON": 0,
    "__GFP_SKIP_KASAN_POISON": 0,
    "__GFP_NOLOCKDEP": 0,
}
_BITS_2_6_11 = {
    "__GFP_DMA": 0x01,
    "__GFP_HIGHMEM": 0x02,
    "__GFP_WAIT": 0x10,
    "__GFP_HIGH": 0x20,
    "__GFP_IO": 0x40,
    "__GFP_FS": 0x80,
    "__GFP_COLD": 0x100,
    "__GFP_NOWARN": 0x200,
    "__GFP_REPEAT": 0x400,
    "__GFP_NOFAIL": 0x800,
    "__GFP_NORETRY": 0x1000,
    "__GFP_NO_GROW": 0x2000,
    "__GFP_COMP": 0x4000,
    "__GFP_ZERO": 0x8000,
}
_COMBINATIONS_6_1 = {
    "__GFP_RECLAIM": "__GFP_DIRECT_RECLAIM __GFP_KSWAPD_RECLAIM",
    "GFP_ATOMIC": "__GFP_HIGH __GFP_ATOMIC __GFP_KSWAPD_RECLAIM",
    "GFP_NOWAIT": "__GFP_KSWAPD_RECLAIM",
    "GFP_NOIO": "__GFP_RECLAIM",
    "GFP_NOFS": "__GFP_RECLAIM __GFP_IO",
    "GFP_KERNEL": "__GFP_RECLAIM __GFP_IO __GFP_FS",
    "GFP_KERNEL_ACCOUNT": "GFP_KERNEL __GFP_ACCOUNT",
    "GFP_USER": "GFP_KERNEL __GFP_HARDWALL",
    "GFP_DMA": "__GFP_DMA",
    "GFP_DMA32": "__GFP_DMA32",
    "GFP_HIGHUSER": "GFP_USER __GFP_HIGHMEM",
    "GFP_HIGHUSER_MOVABLE": "GFP_HIGHUSER __GFP_MOVABLE",
}
_COMBINATIONS_2_6_11 = {
    "GFP_ATOMIC": "__GFP_HIGH",
    "GFP_NOIO": "__GFP_WAIT",
    "GFP_NOFS": "__GFP_WAIT __GFP_IO",
    "GFP_KERNEL": "__GFP_WAIT __GFP_IO __GFP_FS",
    "GFP_USER": "__GFP_WAIT __GFP_IO __GFP_FS",
    "GFP_DMA": "__GFP_DMA",
    "GFP_HIGHUSER": "GFP_USER __GFP_HIGHMEM",
}


def _table(bits: dict[str, int], combinations: dict[str, str]) -> dict[str, gfp_t]:
    table = {name: gfp_t(value) for name, value in bits.items()}
    for name, parts in combinations.items():
        value = 0
        for part in parts.split():
            value |= table[part]
        table[name] = gfp_t(value)
    return table


TABLE_6_1 = _table(_BITS_6_1, _COMBINATIONS_6_1)
_huge = TABLE_6_1["GFP_HIGHUSER_MOVABLE"] | 0x40000 | 0x80000 | 0x2000
TABLE_6_1["GFP_TRANSHUGE_LIGHT"] = _huge & ~TABLE_6_1["__GFP_RECLAIM"]
TABLE_6_1["GFP_TRANSHUGE"] = TABLE_6_1["GFP_TRANSHUGE_LIGHT"] | TABLE_6_1["__GFP_DIRECT_RECLAIM"]

# 6.12 dropped __GFP_ATOMIC, and GFP_NOWAIT no longer warns; the other values stayed.
_BITS_6_12 = {name: value for name, value in _BITS_6_1.items() if name != "__GFP_ATOMIC"}
_COMBINATIONS_6_12 = _COMBINATIONS_6_1 | {
    "GFP_ATOMIC": "__GFP_HIGH __GFP_KSWAPD_RECLAIM",
    "GFP_NOWAIT": "__GFP_KSWAPD_RECLAIM __GFP_NOWARN",
}
_table_6_12 = _table(_BITS_6_12, _COMBINATIONS_6_12)
for _name in ("GFP_TRANSHUGE_LIGHT", "GFP_TRANSHUGE"):
    _table_6_12[_name] = TABLE_6_1[_name]

# Between: the low bits of 2.6.11 stayed until 4.20, those above moved; 5.0 has the values of 6.1.
_BITS_3_10 = {name: value for name, value in _BITS_2_6_11.items() if name != "__GFP_NO_GROW"} | {
    "__GFP_DMA32": 0x04, "__GFP_MOVABLE": 0x08, "__GFP_MEMALLOC": 0x2000, "__GFP_NOMEMALLOC": 0x10000,
    "__GFP_HARDWALL": 0x20000, "__GFP_THISNODE": 0x40000, "__GFP_RECLAIMABLE": 0x80000, "__GFP_WRITE": 0x1000000,
}  # fmt: skip
_COMBINATIONS_3_10 = _COMBINATIONS_2_6_11 | {
    "GFP_USER": "GFP_KERNEL __GFP_HARDWALL", "GFP_DMA32": "__GFP_DMA32", "GFP_HIGHUSER": "GFP_USER __GFP_HIGHMEM",
    "GFP_HIGHUSER_MOVABLE": "GFP_HIGHUSER __GFP_MOVABLE",
}  # fmt: skip


def _bits_4(direct: int, write: int, kswapd: int, retry: str, *, cold: bool = True) -> dict[str, int]:
    """The bits of a 4.x kernel from 4.4 on: __GFP_WAIT is gone, what took its place moved twice."""
    bits = {name: value for name, value in _BITS_3_10.items() if name not in ("__GFP_WAIT", "__GFP_REPEAT")}
    bits |= {"__GFP_RECLAIMABLE": 0x10, "__GFP_ATOMIC": 0x80000, "__GFP_ACCOUNT": 0x100000, retry: 0x400}
    bits |= {"__GFP_DIRECT_RECLAIM": direct, "__GFP_WRITE": write, "__GFP_KSWAPD_RECLAIM": kswapd}
    return bits if cold else {name: value for name, value in bits.items() if name != "__GFP_COLD"}


FLAGS: dict[str, dict[str, gfp_t]] = {
    "linux-6.1": TABLE_6_1,
    "linux-6.12": _table_6_12,
    "linux-4.19": _table(_bits_4(0x200000, 0x800000, 0x400000, "__GFP_RETRY_MAYFAIL", cold=False), _COMBINATIONS_6_1),
    "linux-4.14": _table(_bits_4(0x400000, 0x800000, 0x1000000, "__GFP_RETRY_MAYFAIL"), _COMBINATIONS_6_1),
    "linux-4.9": _table(_bits_4(0x400000, 0x1000000, 0x2000000, "__GFP_REPEAT"), _COMBINATIONS_6_1),
    "linux-3.10": _table(_BITS_3_10, _COMBINATIONS_3_10),
    "linux-2.6.11": _table(_BITS_2_6_11, _COMBINATIONS_2_6_11),
}

__GFP_DMA = TABLE_6_1["__GFP_DMA"]
__GFP_HIGHMEM = TABLE_6_1["__GFP_HIGHMEM"]
__GFP_DMA32 = TABLE_6_1["__GFP_DMA32"]
__GFP_MOVABLE = TABLE_6_1["__GFP_MOVABLE"]
__GFP_RECLAIMABLE = TABLE_6_1["__GFP_RECLAIMABLE"]
__GFP_HIGH = TABLE_6_1["__GFP_HIGH"]
__GFP_IO = TABLE_6_1["__GFP_IO"]
__GFP_FS = TABLE_6_1["__GFP_FS"]
__GFP_ZERO = TABLE_6_1["__GFP_ZERO"]
__GFP_ATOMIC = TABLE_6_1["__GFP_ATOMIC"]
__GFP_DIRECT_RECLAIM = TABLE_6_1["__GFP_DIRECT_RECLAIM"]
__GFP_KSWAPD_RECLAIM = TABLE_6_1["__GFP_KSWAPD_RECLAIM"]
__GFP_RECLAIM = TABLE_6_1["__GFP_RECLAIM"]
__GFP_WRITE = TABLE_6_1["__GFP_WRITE"]
__GFP_NOWARN = TABLE_6_1["__GFP_NOWARN"]
__GFP_RETRY_MAYFAIL = TABLE_6_1["__GFP_RETRY_MAYFAIL"]
__GFP_NOFAIL = TABLE_6_1["__GFP_NOFAIL"]
__GFP_NORETRY = TABLE_6_1["__GFP_NORETRY"]
__GFP_MEMALLOC = TABLE_6_1["__GFP_MEMALLOC"]
__GFP_COMP = TABLE_6_1["__GFP_COMP"]
__GFP_NOMEMALLOC = TABLE_6_1["__GFP_NOMEMALLOC"]
__GFP_HARDWALL = TABLE_6_1["__GFP_HARDWALL"]
__GFP_THISNODE = TABLE_6_1["__GFP_THISNODE"]
__GFP_ACCOUNT = TABLE_6_1["__GFP_ACCOUNT"]
__GFP_ZEROTAGS = TABLE_6_1["__GFP_ZEROTAGS"]
GFP_ATOMIC = TABLE_6_1["GFP_ATOMIC"]
GFP_NOWAIT = TABLE_6_1["GFP_NOWAIT"]
GFP_NOIO = TABLE_6_1["GFP_NOIO"]
GFP_NOFS = TABLE_6_1["GFP_NOFS"]
GFP_KERNEL = TABLE_6_1["GFP_KERNEL"]
GFP_KERNEL_ACCOUNT = TABLE_6_1["GFP_KERNEL_ACCOUNT"]
GFP_USER = TABLE_6_1["GFP_USER"]
GFP_DMA = TABLE_6_1["GFP_DMA"]
GFP_DMA32 = TABLE_6_1["GFP_DMA32"]
GFP_HIGHUSER = TABLE_6_1["GFP_HIGHUSER"]
GFP_HIGHUSER_MOVABLE = TABLE_6_1["GFP_HIGHUSER_MOVABLE"]
GFP_TRANSHUGE_LIGHT = TABLE_6_1["GFP_TRANSHUGE_LIGHT"]
GFP_TRANSHUGE = TABLE_6_1["GFP_TRANSHUGE"]

# The order in which the kernel looks for names: the longer combination first.
_SHOW_ORDER = (
    "GFP_TRANSHUGE GFP_TRANSHUGE_LIGHT GFP_HIGHUSER_MOVABLE GFP_HIGHUSER GFP_USER GFP_KERNEL_ACCOUNT GFP_KERNEL "
    "GFP_NOFS GFP_ATOMIC GFP_NOIO GFP_NOWAIT GFP_DMA __GFP_HIGHMEM GFP_DMA32 __GFP_HIGH __GFP_ATOMIC __GFP_IO "
    "__GFP_FS __GFP_COLD __GFP_NOWARN __GFP_RETRY_MAYFAIL __GFP_REPEAT __GFP_NOFAIL __GFP_NORETRY __GFP_COMP "
    "__GFP_ZERO __GFP_NOMEMALLOC __GFP_MEMALLOC __GFP_HARDWALL __GFP_THISNODE __GFP_RECLAIMABLE __GFP_MOVABLE "
    "__GFP_ACCOUNT __GFP_WRITE __GFP_RECLAIM __GFP_DIRECT_RECLAIM __GFP_KSWAPD_RECLAIM __GFP_ZEROTAGS __GFP_WAIT "
    "__GFP_NO_GROW "
).split()


def _flags_of(kernel: str) -> dict[str, gfp_t]:
    try:
        return FLAGS[kernel]
    except KeyError:
        known = ", ".join(FLAGS)
        raise ValueError(
            f"no flag table for kernel {kernel!r}; known: {known}. "
            "The bits moved between versions, so a mask is only readable with its own kernel's table."
        ) from None


def show_gfp_flags(mask: int, kernel: str = "linux-6.1") -> str:
    """The mask as ``%pGg`` prints it: names joined by ``|``, unknown bits last in hex, "" for 0.

    Kernel: format_flags, lib/vsprintf.c; the order of names is include/trace/events/mmflags.h.

    >>> show_gfp_flags(0xdc0)
    'GFP_KERNEL|__GFP_ZERO'
    """
    table = _flags_of(kernel)
    rest, names = int(mask), []
    for name in _SHOW_ORDER:
        if name == "GFP_USER" and table[name] == table["GFP_KERNEL"]:
            continue  # 2.6.11: two names of one mask
        bits = int(table.get(name, 0))
        if bits and rest & bits == bits:
            names.append(name)
            rest &= ~bits
    if rest:
        names.append(f"{rest:#x}")
    return "|".join(names)


def parse_gfp_flags(text: str, kernel: str = "linux-6.1") -> gfp_t:
    """The mask of a printed text; ValueError names the word that is no flag.

    >>> parse_gfp_flags("GFP_KERNEL|__GFP_ZERO")
    GFP_KERNEL|__GFP_ZERO (0xdc0)
    """
    table, mask = _flags_of(kernel), 0
    if text in ("none", ""):
        return gfp_t(0)
    for word in text.split("|"):
        if word in table:
            mask |= table[word]
            continue
        try:
            mask |= int(word, 16)
        except ValueError:
            raise ValueError(f"{word!r} is not a gfp flag of {kernel}") from None
    return gfp_t(mask)


# Kernel: GFP_ZONE_TABLE, include/linux/gfp.h. Two zone bits at once are invalid; without DEBUG_VM the
# kernel shifts past the table's entries and is left with zone 0.
_ZONE_64 = {0x0: 2, 0x8: 2, 0x1: 0, 0x9: 0, 0x2: 2, 0xA: 3, 0x4: 1, 0xC: 1}
_ZONE_32 = {0x0: 1, 0x8: 1, 0x1: 0, 0x9: 0, 0x2: 2, 0xA: 3, 0x4: 1, 0xC: 1}


def gfp_zone(mask: int, *, highmem: bool = False) -> int:
    """Index of the highest zone the mask may use: x86-64 0 DMA, 1 DMA32, 2 Normal, 3 Movable;
    with ``highmem`` (i386) 0 DMA, 1 Normal, 2 HighMem, 3 Movable.

    Kernel: gfp_zone, include/linux/gfp.h.
    """
    return (_ZONE_32 if highmem else _ZONE_64).get(mask & 0xF, 0)


def gfp_migratetype(mask: int) -> int:
    """The free list a mask asks for: 0 Unmovable, 1 Movable, 2 Reclaimable (3 is invalid).

    Kernel: gfp_migratetype, include/linux/gfp.h.
    """
    return int(mask >> 3 & 3)


def gfpflags_allow_blocking(mask: int) -> bool:
    """Whether the caller may sleep: ``__GFP_DIRECT_RECLAIM`` is set.

    Kernel: gfpflags_allow_blocking, include/linux/gfp.h.
    """
    return bool(mask & 0x400)


class Decoded(NamedTuple):
    """A mask read with one kernel's table; ``unknown`` are the bits that table does not name."""

    mask: int
    kernel: str
    names: tuple[str, ...]
    unknown: int

    def __str__(self) -> str:
        text = f"mode:{self.mask:#x}({'|'.join(self.names) or 'none'}) in {self.kernel}"
        if self.unknown:
            text += (
                f"; {self.unknown:#x} has no name there: the mask comes from another kernel version, "
                "whose table may give all its bits other names"
            )
        return text

    def __repr__(self) -> str:
        return str(self)


def decode(mode: int, kernel: str = "linux-6.1") -> Decoded:
    """Read the ``mode:0x...`` of a report with the table of one kernel version.

    Errors: ValueError when there is no table for ``kernel``.

    >>> decode(0xd0, kernel="linux-2.6.11")
    mode:0xd0(GFP_KERNEL) in linux-2.6.11
    """
    table, rest, names = _flags_of(kernel), int(mode), []
    for name in show_gfp_flags(mode, kernel).split("|"):
        if name in table:
            names.append(name)
            rest &= ~int(table[name])
    return Decoded(int(mode), kernel, tuple(names), rest)
