"""Where code runs: process, softirq or hard interrupt, under which locks, in which scopes; who may sleep there.

Kernel: include/linux/preempt.h, include/linux/sched/mm.h (might_alloc, current_gfp_context, the memalloc scopes),
kernel/sched/core.c (__might_resched, __schedule_bug), include/linux/spinlock.h, include/linux/rcupdate.h.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kmemlab.null import KernelBug

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "PF_MEMALLOC",
    "PF_MEMALLOC_NOFS",
    "PF_MEMALLOC_NOIO",
    "SCHED_MM",
    "Context",
    "ContextMachine",
    "Section",
    "might_alloc",
    "might_sleep",
    "schedule_check",
]

PF_MEMALLOC = 0x800
PF_MEMALLOC_NOFS = 0x40000
PF_MEMALLOC_NOIO = 0x80000
SOFTIRQ, SOFTIRQ_DISABLE, HARDIRQ = 0x100, 0x200, 0x10000
SCHED_MM = "include/linux/sched/mm.h:274"


class Context:
    """The state of the running CPU and task that decides what an allocation may do.

    ``preempt_count`` as in the kernel: 1 a spinlock or preempt_disable, 0x100 softirq, 0x200 bottom halves off,
    0x10000 hard interrupt. ``rcu`` is the depth of rcu_read_lock, ``flags`` the task's PF_MEMALLOC bits.
    """

    __slots__ = ("comm", "flags", "forgotten", "irqs_disabled", "locks", "pid", "preempt_count", "rcu", "scheduled")

    def __init__(self) -> None:
        self.comm, self.pid = "python", 1
        self.preempt_count = self.irqs_disabled = self.rcu = self.flags = 0
        self.locks: list[Any] = []
        self.scheduled = 0  # how often something slept where it must not
        self.forgotten = 0  # of preempt_count, after a complaint

    @property
    def plain(self) -> bool:
        """Nothing special: a process without locks and scopes."""
        return not (self.preempt_count or self.irqs_disabled or self.rcu or self.flags)

    @property
    def in_interrupt(self) -> bool:
        """Serving a softirq or a hard interrupt, or bottom halves are off. Kernel: in_interrupt."""
        return self.preempt_count >= SOFTIRQ

    @property
    def may_sleep(self) -> bool:
        """Whether code may sleep here."""
        return not (self.preempt_count or self.irqs_disabled or self.rcu)

    @property
    def task(self) -> str:
        """The task that runs or was interrupted, as "comm/pid"."""
        return f"{self.comm}/{self.pid}"

    @property
    def who(self) -> str:
        """Who runs: a task as "comm/pid", "a softirq" or "a hard interrupt"."""
        where = self.words.split(",")[0]
        return self.task if where == "process context" else where

    @property
    def words(self) -> str:
        """The context in a few words."""
        count = self.preempt_count
        if count & HARDIRQ:
            where = "a hard interrupt"
        elif count & SOFTIRQ:
            where = "a softirq"
        else:
            where = "process context"
        held = [f"holding {', '.join(map(str, self.locks))}"] if self.locks else []
        held += ["bottom halves off"] if count & SOFTIRQ_DISABLE else []
        held += ["preemption off"] if count & 0xFF and not self.locks else []
        held += ["interrupts off"] if self.irqs_disabled and not count & HARDIRQ else []
        held += ["under rcu_read_lock"] if self.rcu else []
        return ", ".join([where, *held])


class Section:
    """What a call such as ``m.spin_lock(lock)`` returns: usable with ``with``, which undoes it at the end."""

    __slots__ = ("undo",)

    def __init__(self, undo: Callable[[], object]) -> None:
        self.undo = undo

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:  # a task that was given up is thrown away: nobody runs its way out
            self.undo()


def might_alloc(m: Any, gfp: int) -> int:
    """The mask as the task's scopes leave it, after the check that it may sleep here.

    Kernel: current_gfp_context and might_alloc, include/linux/sched/mm.h.
    """
    context: Context = m.context
    if context.plain:
        return gfp
    if context.flags & PF_MEMALLOC_NOIO:
        gfp &= ~0xC0
    elif context.flags & PF_MEMALLOC_NOFS:
        gfp &= ~0x80
    if gfp & 0x400:
        might_sleep(m, SCHED_MM)
    return gfp


def might_sleep(m: Any, place: str) -> None:
    """Complain, in a kernel with DEBUG_ATOMIC_SLEEP, that a call that may sleep was made where nobody may.

    At most once a second. Kernel: __might_resched, kernel/sched/core.c.
    """
    context: Context = m.context
    if context.may_sleep or "DEBUG_ATOMIC_SLEEP" not in m.config:
        return
    if not m.once_in(1000, "might_sleep"):
        return
    lines = [
        f"BUG: sleeping function called from invalid context at {place}",
        (
            f"in_atomic(): {int(bool(context.preempt_count))}, irqs_disabled(): {int(bool(context.irqs_disabled))}, "
            f"non_block: 0, pid: {context.pid}, name: {context.comm}"
        ),
        f"preempt_count: {context.preempt_count:x}, expected: 0",
        f"RCU nest depth: {context.rcu}, expected: 0",
    ]
    if context.preempt_count:
        lines += ["Preemption disabled at:", f"[<{0:016x}>] {m.call_site}"]
    m.printk("\n".join([*lines, *m.dump_stack()]))
    m.taints.add("W")


def schedule_check(m: Any) -> None:
    """What the kernel says when a task really gives the CPU away where it must not.

    Debian's kernel finds out only now. With nothing but interrupts off, or over the idle task, it says nothing.
    Kernel: __schedule_bug, kernel/sched/core.c; rcu_note_context_switch, kernel/rcu/tree_plugin.h.
    """
    context: Context = m.context
    if context.may_sleep:
        return
    context.scheduled += 1
    if context.preempt_count and context.pid:
        count = context.preempt_count + 1  # the scheduler's own
        m.printk(
            "\n".join([f"BUG: scheduling while atomic: {context.comm}/{context.pid}/0x{count:08x}", *m.dump_stack()])
        )
        m.taints.add("W")
        context.forgotten, context.preempt_count = context.preempt_count, 0  # so the kernel: it complains once
    elif context.rcu and m.warn_once("rcu switch"):
        text = "Voluntary context switch within RCU read-side critical section!"
        m.printk(f"------------[ cut here ]------------\n{text}")
        m.warn("kernel/rcu/tree_plugin.h:320 rcu_note_context_switch+0x4e9/0x570", cut=False)


class ContextMachine:
    """The part of a ``Machine`` that says where its code runs."""

    __slots__ = ()  # its fields are slots of Machine

    context: Context

    def in_atomic(self) -> bool:
        """Kernel: in_atomic, include/linux/preempt.h."""
        return bool(self.context.preempt_count)

    def irqs_disabled(self) -> bool:
        """Kernel: irqs_disabled, include/linux/irqflags.h."""
        return bool(self.context.irqs_disabled)

    def _section(self: Any, undo: Callable[[], object], *, count: int = 0, irqs: int = 0) -> Section:
        self.context.preempt_count += count
        self.context.irqs_disabled += irqs
        self._listen()
        return Section(undo)

    def _leave(self: Any, *, count: int = 0, irqs: int = 0) -> None:
        context = self.context
        if context.preempt_count < count <= context.forgotten:
            context.forgotten -= count
            count = 0
        if context.preempt_count < count or context.irqs_disabled < irqs:
            raise KernelBug(self.oops("BUG: preempt_count underflow: more was released than was held"))
        context.preempt_count -= count
        context.irqs_disabled -= irqs
        self._listen()
        if context.may_sleep:
            self.run_pending()

    # --- locks ---------------------------------------------------------------------------------

    def spin_lock(self: Any, lock: Any) -> Section:
        """Take a spinlock (any object): nobody may sleep until ``spin_unlock``. Kernel: spin_lock.

        Errors: KernelBug for a lock this CPU holds already: it would spin for ever.
        """
        if lock in self.context.locks:
            raise KernelBug(
                self.oops(f"BUG: spinlock recursion on CPU#{self.cpu}, {self.context.comm}/{self.context.pid}")
            )
        self.context.locks.append(lock)
        held: Section = self._section(lambda: self.spin_unlock(lock), count=1)
        return held

    def spin_unlock(self: Any, lock: Any) -> None:
        """Kernel: spin_unlock. Errors: KernelBug for a lock that is not held."""
        if lock not in self.context.locks:
            raise KernelBug(
                self.oops(f"BUG: spinlock already unlocked on CPU#{self.cpu}, {self.context.comm}/{self.context.pid}")
            )
        self.context.locks.remove(lock)
        self._leave(count=1)

    def spin_lock_irqsave(self: Any, lock: Any) -> Section:
        """Take a spinlock with interrupts off. Kernel: spin_lock_irqsave."""
        self.local_irq_save()
        self.spin_lock(lock)
        return Section(lambda: self.spin_unlock_irqrestore(lock))

    def spin_unlock_irqrestore(self: Any, lock: Any) -> None:
        """Kernel: spin_unlock_irqrestore."""
        self.spin_unlock(lock)
        self.local_irq_restore()

    def spin_lock_bh(self: Any, lock: Any) -> Section:
        """Take a spinlock with bottom halves off. Kernel: spin_lock_bh."""
        self.local_bh_disable()
        self.spin_lock(lock)
        return Section(lambda: (self.spin_unlock(lock), self.local_bh_enable()))

    # --- preemption, interrupts, RCU ----------------------------------------------------------------

    def preempt_disable(self) -> Section:
        """Kernel: preempt_disable, include/linux/preempt.h."""
        return self._section(self.preempt_enable, count=1)

    def preempt_enable(self) -> None:
        """Kernel: preempt_enable."""
        self._leave(count=1)

    def local_bh_disable(self) -> Section:
        """No softirqs until ``local_bh_enable``. Kernel: local_bh_disable, include/linux/bottom_half.h."""
        return self._section(self.local_bh_enable, count=SOFTIRQ_DISABLE)

    def local_bh_enable(self) -> None:
        """Kernel: local_bh_enable."""
        self._leave(count=SOFTIRQ_DISABLE)

    def local_irq_save(self) -> Section:
        """No interrupts until ``local_irq_restore``. Kernel: local_irq_save, include/linux/irqflags.h."""
        return self._section(self.local_irq_restore, irqs=1)

    def local_irq_restore(self) -> None:
        """Kernel: local_irq_restore."""
        self._leave(irqs=1)

    def rcu_read_lock(self: Any) -> Section:
        """Kernel: rcu_read_lock, include/linux/rcupdate.h."""
        self.context.rcu += 1
        held: Section = self._section(self.rcu_read_unlock)
        return held

    def rcu_read_unlock(self: Any) -> None:
        """Kernel: rcu_read_unlock. Errors: KernelBug if nothing was locked."""
        if not self.context.rcu:
            raise KernelBug(self.oops("BUG: rcu_read_unlock without rcu_read_lock"))
        self.context.rcu -= 1
        self._leave()

    def softirq(self: Any, *, idle: bool = False) -> Section:
        """``with m.softirq():`` runs in a softirq (a timer, a tasklet); ``idle``: it came over the idle task."""
        undo = self._task("swapper/0", 0) if idle else None
        count = SOFTIRQ + idle
        inside: Section = self._section(lambda: (self._leave(count=count), undo and undo()), count=count)
        return inside

    def hardirq(self: Any) -> Section:
        """``with m.hardirq():`` runs in an interrupt handler: interrupts are off."""
        inside: Section = self._section(lambda: self._leave(count=HARDIRQ, irqs=1), count=HARDIRQ, irqs=1)
        return inside

    def _task(self: Any, comm: str, pid: int) -> Callable[[], None]:
        context = self.context
        before = context.comm, context.pid
        context.comm, context.pid = comm, pid

        def back() -> None:
            context.comm, context.pid = before

        return back

    # --- scopes ---------------------------------------------------------------------------------------

    def _scope(self: Any, flag: int) -> int:
        before = int(self.context.flags & flag)
        self.context.flags |= flag
        self._listen()
        return before

    def _unscope(self: Any, flag: int, before: int) -> None:
        self.context.flags = self.context.flags & ~flag | before
        self._listen()

    def memalloc_noio_save(self) -> int:
        """Until ``memalloc_noio_restore`` every mask loses __GFP_IO and __GFP_FS. Kernel: include/linux/sched/mm.h."""
        return self._scope(PF_MEMALLOC_NOIO)

    def memalloc_noio_restore(self, flags: int) -> None:
        """End the scope; ``flags`` is what ``memalloc_noio_save`` returned."""
        self._unscope(PF_MEMALLOC_NOIO, flags)

    def memalloc_nofs_save(self) -> int:
        """Until ``memalloc_nofs_restore`` every mask loses __GFP_FS. Kernel: include/linux/sched/mm.h."""
        return self._scope(PF_MEMALLOC_NOFS)

    def memalloc_nofs_restore(self, flags: int) -> None:
        """End the scope; ``flags`` is what ``memalloc_nofs_save`` returned."""
        self._unscope(PF_MEMALLOC_NOFS, flags)

    def memalloc_noreclaim_save(self) -> int:
        """Until ``memalloc_noreclaim_restore`` this task may use all reserves (PF_MEMALLOC)."""
        return self._scope(PF_MEMALLOC)

    def memalloc_noreclaim_restore(self, flags: int) -> None:
        """End the scope; ``flags`` is what ``memalloc_noreclaim_save`` returned."""
        self._unscope(PF_MEMALLOC, flags)
