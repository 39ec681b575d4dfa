"""Machine: three ways to make one, its settings, copies, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kmemlab import GFP_KERNEL, RULES, Machine
from kmemlab.kernels import KERNELS
from tests.engine.calls import random_calls, state


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kernel": "linux-7"}, "kernel='linux-7': this lab boots linux-6.1"),
        ({"memory": "much"}, "memory='much' is not a size"),
        ({"memory": "1M"}, "a machine has between 8M and 64T"),
        ({"cpus": 0}, "cpus=0: a machine has 1 to 256 CPUs"),
        ({"cpus": "2"}, "cpus='2'"),
        ({"without": {"pcp", "gravity"}}, "without=['gravity']: no such rule; the rules are batch_scale"),
        ({"without": "gravity"}, "without=['gravity']"),
        ({"config": ("DEBUG_ALL",)}, "config=['DEBUG_ALL']"),
        ({"cmdline": "quiet"}, "cmdline: 'quiet' is not an option"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(arguments, said: str) -> None:
    """One ValueError, one line, the argument in it."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        Machine(**arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_rule_may_be_named_alone_or_with_others() -> None:
    """A string is one rule; all together still boot and work."""
    for rule in RULES:
        m = Machine(memory="16M", without=rule)
        assert m.without == {rule}
        assert m.alloc_pages(GFP_KERNEL, 0)
        assert m.check()
    m = Machine(memory="16M", without=RULES)
    assert m.alloc_pages(GFP_KERNEL, 3)
    assert m.check()


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_boots(kernel: str) -> None:
    """Each profile makes a machine that works."""
    m = Machine(kernel, memory="1G", cpus=3)
    list(random_calls(m, 1, 300, [])) if kernel == "linux-6.1" else m.alloc_pages(GFP_KERNEL, 2)
    assert m.check()
    assert m.kernel.name == kernel


def test_copies_are_independent() -> None:
    """A copy goes on as the original would, and neither sees the other's calls; observers stay behind."""
    m = Machine(memory="64M", cpus=2)
    held: list = []
    list(random_calls(m, 1, 1000, held))
    m.trace()
    twin = m.copy()
    assert state(twin) == state(m)
    assert not twin.events
    before = state(twin)
    mine = list(random_calls(m, 2, 500, []))
    assert state(twin) == before
    assert list(random_calls(twin, 2, 500, [])) == mine
    assert state(twin) == state(m)
    assert twin.check()
    page = held[0][0]
    assert twin.memmap[page.pfn] is not page
    assert twin.memmap[page.pfn].zone is not page.zone


def test_a_recordings_machine_can_be_copied() -> None:
    """Also with a recording behind it, which both then name."""
    m = Machine.from_recording("256M-a-21")
    twin = m.copy()
    assert state(twin) == state(m)
    assert twin.label == m.label == "256M-a-21"
    assert m.alloc_pages(GFP_KERNEL, 0).pfn == twin.alloc_pages(GFP_KERNEL, 0).pfn


def test_explain_of_a_copy_is_the_originals() -> None:
    """The last request goes with the copy."""
    m = Machine(memory="64M")
    m.alloc_pages(GFP_KERNEL, 0)
    assert str(m.copy().explain()) == str(m.explain())


def test_the_cpu_that_runs() -> None:
    """Settable to a CPU there is; each has its own lists."""
    m = Machine(memory="256M", cpus=2)
    first = m.alloc_pages(GFP_KERNEL, 0)
    m.cpu = 1
    second = m.alloc_pages(GFP_KERNEL, 0)
    m.cpu = 0
    assert m.alloc_pages(GFP_KERNEL, 0).pfn == first.pfn + 1
    assert second.pfn not in range(first.pfn, first.pfn + 15)
    for wrong in (2, -1, "0", None, 0.5):
        with pytest.raises(ValueError, match=r"this machine has CPUs 0 to 1"):
            m.cpu = wrong
    assert m.cpu == 0


def test_sysctls_recompute_what_follows() -> None:
    """Each one changes what the kernel's handler changes, and nothing else."""
    m = Machine(memory="256M")
    zone = m.zones[1]
    zone.watermark_boost = 512
    reserve = list(m.zones[0].lowmem_reserve)
    m.sysctl("vm.min_free_kbytes", 4096)
    assert sum(z.wmark[0] for z in m.zones) in range(1022, 1025)
    assert zone.watermark_boost == 0
    assert zone.pcp.high == zone.wmark[1]
    assert m.zones[0].lowmem_reserve == reserve
    m.sysctl("vm.watermark_scale_factor", 1000)
    assert zone.wmark[1] - zone.wmark[0] == zone.managed // 10
    m.sysctl("vm.percpu_pagelist_high_fraction", 8)
    assert zone.pcp.high == zone.managed // 8
    m.sysctl("vm.lowmem_reserve_ratio", [16, 16, 16, 0, 0])
    assert m.zones[0].lowmem_reserve[1] == zone.managed // 16
    assert m.sysctl("min_free_kbytes") == m.sysctl("/proc/sys/vm/min_free_kbytes") == 4096
    assert m.check()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vm.swappiness", 60), ("vm.min_free_kbytes", 0), ("vm.min_free_kbytes", "4096"), ("vm.min_free_kbytes", 1.5),
        ("vm.watermark_scale_factor", 3001), ("vm.watermark_scale_factor", 0), ("vm.lowmem_reserve_ratio", [1, 2]),
        ("vm.percpu_pagelist_high_fraction", 7), ("vm.lowmem_reserve_ratio", [1, 1, 1, 1, -1]),
        ("vm.watermark_boost_factor", -1),
    ],
)  # fmt: skip
def test_wrong_sysctls_change_nothing(name: str, value) -> None:
    """What the kernel's handler refuses is refused, with the range, before anything is changed."""
    m = Machine(memory="64M")
    before = state(m)
    with pytest.raises(ValueError, match=r"vm\.") as caught:
        m.sysctl(name, value)
    assert "\n" not in str(caught.value)
    assert state(m) == before


def test_the_same_numbers_in_another_process() -> None:
    """Nothing hangs on hash seeds or addresses: another Python gives the same pages."""
    program = (
        "from kmemlab import Machine; from tests.engine.calls import random_calls; "
        "print(list(random_calls(Machine(memory='32M', cpus=2), 5, 500, []))[-40:])"
    )
    out = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."}, capture_output=True,
            text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(out) == 1
    assert str(list(random_calls(Machine(memory="32M", cpus=2), 5, 500, []))[-40:]) == out.pop().strip()


def test_the_slow_path_is_a_generator() -> None:
    """Design rule 5: what may sleep yields; the machine drives it to its value."""
    m = Machine(memory="16M")

    def sleeper():
        yield
        yield
        return 7

    assert m.drive(sleeper()) == 7
