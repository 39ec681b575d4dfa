"""The kernel's functions that a machine has as methods, by the kernel's names; last, two of the laboratory's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kmemlab import get_free_pages, kmalloc, mempool, page_alloc, page_free, pressure, slab_common, slub

__all__ = ["CALLS"]

CALLS: tuple[Callable[..., Any], ...] = (
    page_alloc.alloc_pages,
    page_alloc.alloc_pages_bulk,
    get_free_pages.alloc_page,
    get_free_pages.__get_free_pages,
    get_free_pages.__get_free_page,
    get_free_pages.get_zeroed_page,
    get_free_pages.free_pages,
    get_free_pages.free_page,
    get_free_pages.alloc_pages_exact,
    get_free_pages.free_pages_exact,
    get_free_pages.split_page,
    get_free_pages.page_to_pfn,
    get_free_pages.virt_to_page,
    get_free_pages.page_address,
    page_free.__free_pages,
    page_free.__free_page,
    page_free.get_page,
    page_free.put_page,
    page_free.drain_all_pages,
    slab_common.kmem_cache_create,
    slab_common.KMEM_CACHE,
    slab_common.kmem_cache_alloc,
    slab_common.kmem_cache_zalloc,
    slab_common.kmem_cache_alloc_bulk,
    slab_common.kmem_cache_free,
    slab_common.kmem_cache_free_bulk,
    slab_common.kmem_cache_size,
    slab_common.kmem_cache_shrink,
    slab_common.kmem_cache_destroy,
    slab_common.validate_slab_cache,
    slub.rcu_barrier,
    kmalloc.kmalloc,
    kmalloc.kzalloc,
    kmalloc.kmalloc_array,
    kmalloc.kcalloc,
    kmalloc.krealloc,
    kmalloc.ksize,
    kmalloc.kmalloc_size_roundup,
    kmalloc.kfree,
    kmalloc.kfree_sensitive,
    kmalloc.kvmalloc,
    kmalloc.kvfree,
    pressure.pressure,
    pressure.recorded_page_cache,
    *(getattr(mempool, name) for name in mempool.__all__ if name.startswith("mempool_")),
)
