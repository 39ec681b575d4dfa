"""The OOM killer: who is killed, and what the log says.

Kernel: mm/oom_kill.c, the functions of the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kmemlab import reclaim_events as events
from kmemlab.gfp import gfp_zone, show_gfp_flags

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["EXIT_MS", "exit_process", "oom_badness", "out_of_memory", "select_bad_process"]

OOM_SCORE_ADJ_MIN = -1000
EXIT_MS = 2  # until a killed process has given its memory back: longer than one round


def oom_badness(m: Machine, process: Any) -> int | None:
    """How much killing a process would free, in pages, shifted by its oom_score_adj; None: never to be killed."""
    if process.oom_score_adj == OOM_SCORE_ADJ_MIN or process.dying:
        return None
    points: int = process.rss + process.swapents + process.pgtables
    adjusted: int = process.oom_score_adj * m.totalram_pages() // 1000
    return points + adjusted


def select_bad_process(m: Machine) -> Any:
    """The process with the highest badness, the later one of equals; None if there is none to kill."""
    chosen, most = None, None
    for process in m.processes:
        points = oom_badness(m, process)
        if points is not None and (most is None or points >= most):
            chosen, most = process, points
    return chosen


def out_of_memory(m: Machine, gfp: int, order: int) -> bool:
    """Kill somebody; True if there is hope. Without __GFP_FS nobody is killed, and True is said all the same."""
    if any(process.dying for process in m.processes):
        return True
    if not gfp & 0x80:
        return True
    victim = select_bad_process(m)
    if victim is None:
        return False
    if m.once_in(500, "oom"):
        m.printk("\n".join(dump_header(m, gfp, order)))
        m.printk(_oom_kill_line(victim))
    kb = 4 * victim.rss
    m.printk(
        f"Out of memory: Killed process {victim.pid} ({victim.comm}) total-vm:{4 * victim.total_vm}kB, "
        f"anon-rss:{kb}kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:{4 * victim.pgtables}kB "
        f"oom_score_adj:{victim.oom_score_adj}"
    )
    m.trail.append((events.MarkVictim, victim.pid, victim.comm, victim.rss))
    m.lru.stat["oom_kill"] += 1
    victim.dying = True
    m.at(EXIT_MS, exit_process, victim.pid)
    return True


def exit_process(m: Machine, pid: int) -> None:
    """A killed process is gone, its memory is back. Kernel: do_exit, kernel/exit.c."""
    for process in m.processes:
        if process.pid == pid:
            process.exit()
            return


def dump_header(m: Machine, gfp: int, order: int) -> list[str]:
    """The report's first lines: who asked, memory, all tasks. Kernel: dump_header, dump_tasks."""
    context = m.context
    lines = [
        f"{context.comm} invoked oom-killer: gfp_mask={gfp:#x}({show_gfp_flags(gfp)}), order={order}, oom_score_adj=0",
        *m.dump_stack(),
        *m.mem_info(gfp_zone(gfp, highmem=m.kernel.highmem)),
        "Tasks state (memory values in pages):",
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
    ]
    lines.extend(
        f"[{p.pid:7d}] {0:5d} {p.pid:5d} {p.total_vm:8d} {p.rss:8d} {p.pgtables * 4096:8d} {p.swapents:8d}"
        f"         {p.oom_score_adj:5d} {p.comm}"
        for p in m.processes
    )
    return lines


def _oom_kill_line(victim: Any) -> str:
    return (
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,"
        f"task={victim.comm},pid={victim.pid},uid=0"
    )
