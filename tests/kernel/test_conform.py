"""The model against a real kernel: every page frame number, every failure, every list at the end."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from kmemlab import RULES, Machine, cli, conform
from kmemlab.conform import Conformance, compare_states

HERE = Path(__file__).resolve().parent
BUDDY = sorted((HERE / "recordings" / "buddy").glob("*.json.gz"))
SHIPPED = sorted((HERE.parent.parent / "lessons" / "recordings").glob("*.json.gz"))
LESSONS = [
    path for path in SHIPPED if not path.name.startswith(("real-", "slub-", "reclaim-"))
]  # test_slub, test_pressure
REAL = sorted(
    [
        *(HERE.parent.parent / "lessons" / "recordings").glob("real-*.json.gz"),
        *(HERE / "recordings" / "real").glob("*.snap.json.gz"),
    ]
)
ALL = [*BUDDY, *LESSONS, *REAL]
FULL = os.environ.get("KMEMLAB_STRESS") == "full"

# What each rule is worth: share of all pages right before the first miss with the rule off, in percent, from the
# kernel recordings' README ("steal_block" is switched off more widely here, see test_share_of_all_recordings).
README_SHARES = {
    "pcp": 0.9, "batch_scale": 26, "merge_likely": 37, "free_factor": 41, "lowmem_reserve": 69, "steal_block": 70,
    "boost": 72, "counter_lag": 72, "highatomic": 91, "nofragment": 92,
}  # fmt: skip
# A few recordings that between them need every rule, small enough to be replayed ten times.
SAMPLE = ("128M-a-11", "128M-b-12", "256M-d-24", "96M-e-52", "96M-g-53", "192M-mcpu4-i-203", "256M-normal-d-34")


def name_of(path: Path) -> str:
    return path.name.split(".")[0]


def edited(path: Path, folder: Path, change) -> Path:
    """Copy a recording with ``change(data)`` applied."""
    data = json.loads(gzip.decompress(path.read_bytes()))
    change(data)
    copy = folder / path.name
    copy.write_bytes(gzip.compress(json.dumps(data).encode(), 1))
    return copy


def test_every_recording_is_here() -> None:
    """A glob that finds nothing must not look like a suite that passes."""
    assert len({name_of(path) for path in [*BUDDY, *LESSONS]}) == 58
    assert len(REAL) == 3


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_every_page_is_predicted(path: Path) -> None:
    """The headline: 100 % of the pages, no wrong failure, the end state equal in every list."""
    result = conform(path)
    assert result.total > 500
    assert (result.predicted, result.wrong_failures, result.differences) == (result.total, 0, []), result.miss
    assert result.exact
    assert result.first_miss is None
    assert result.right_before_first_miss == result.total


@pytest.mark.parametrize("path", [*LESSONS, *BUDDY[::9]], ids=name_of)
def test_the_bookkeeping_holds_at_the_end(path: Path) -> None:
    """The replayed machine and the machines built from both dumps keep every invariant."""
    m = Machine.from_recording(path)
    assert m.check()
    for op in m.recording.ops:
        m.cpu = (op[4] if op[0] else op[3]) if m.cpus > 1 and len(op) > 3 + op[0] else m.cpu
        if op[0]:
            m.alloc_pages(op[1], op[2])
        else:
            m.__free_pages(m.memmap[op[1]], op[2])
    assert m.check()
    end = Machine.from_recording(path, state="state1")
    assert end.check()
    assert list(compare_states(m, end)) == []


def shares(rule: str, paths: list[Path]) -> tuple[float, list[Conformance]]:
    results = [conform(path, {rule}) for path in paths]
    return 100 * sum(r.right_before_first_miss for r in results) / sum(r.total for r in results), results


@pytest.mark.parametrize("rule", sorted(RULES))
def test_each_rule_matters(rule: str) -> None:
    """A rule that is switched off must be missed by some recording: the switch works, and the rule is needed."""
    by_name = {name_of(path): path for path in ALL}
    share, results = shares(rule, [by_name[name] for name in SAMPLE])
    assert any(not r.exact for r in results), f"without {rule} every sample is still exact"
    if rule == "pcp":
        assert share < 2
    else:
        assert share < 99.9
        assert any(r.right_before_first_miss > 0 for r in results)


def test_switched_off_rules_are_the_only_difference() -> None:
    """``without=()`` and no ``without`` are the same replay: unused switches cost no page."""
    path = LESSONS[0]
    assert str(conform(path, ())) == str(conform(path))


@pytest.mark.parametrize("rule", sorted(RULES) if FULL else ["pcp"])
def test_share_of_all_recordings(rule: str) -> None:
    """The shares of the kernel recordings' README, over all 58: our switches turn off what they name."""
    share, _ = shares(rule, [*BUDDY, *LESSONS] if FULL else BUDDY[:12])  # all ten rules on all files: 50 s
    low, high = README_SHARES[rule] - 2, README_SHARES[rule] + 2
    if rule == "steal_block":
        low = 50  # ours also takes the smallest block where the peer's switch still took the largest
    assert low <= share <= high


# --- the command --------------------------------------------------------------------------------


def test_a_line_a_file_and_a_total(capsys) -> None:
    """Exit 0, the exact lines that design section 4 promises."""
    paths = [str(LESSONS[0]), str(REAL[1])]
    assert cli.main(["conform", *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    first, second = conform(paths[0]), conform(paths[1])
    assert lines == [
        f"{paths[0]}: predicted {first.total} of {first.total}, 0 wrong failures, end state equal",
        f"{paths[1]}: predicted {second.total} of {second.total}, 0 wrong failures, end state equal",
        f"total: predicted {first.total + second.total} of {first.total + second.total}, end states 2 of 2",
    ]


def test_one_changed_frame_is_found(tmp_path: Path, capsys) -> None:
    """A recording that differs in one page gives exit 1, the call, both frames, and the model's story of it."""

    def change(data) -> None:
        ops = data["ops"]
        index = next(i for i, op in enumerate(ops) if i > 200 and op[0] == 1 and op[2] == 0 and op[3] >= 0)
        change.index, (_, change.gfp, _, change.pfn) = index, ops[index]
        ops[index][3] = 5
        freed = next((op for op in ops[index:] if op == [0, change.pfn, 0]), [0, 0])
        freed[1] = 5  # the recording stays consistent: the frame that came is the frame that goes

    path = edited(LESSONS[0], tmp_path, change)
    assert cli.main(["conform", str(path)]) == 1
    out = capsys.readouterr().out
    total = conform(LESSONS[0]).total
    assert f"predicted {total - 1} of {total}, 0 wrong failures, end state equal" in out
    assert f"call {change.index}: alloc_pages({change.gfp:#x}, 0): model pfn {change.pfn}, kernel pfn 5" in out
    assert f"= pfn {change.pfn}: " in out
    assert "  1  page_alloc" in out
    assert out.splitlines()[-1] == f"total: predicted {total - 1} of {total}, end states 1 of 1"


def test_a_changed_end_state_is_found(tmp_path: Path, capsys) -> None:
    """All pages right but another end: not exact, and the list is named."""

    def change(data) -> None:
        zone = data["state1"]["zones"][1]
        free = zone["free"]
        key = next(key for key, pfns in free.items() if len(pfns) > 1)
        free[key] = free[key][::-1]
        change.zone, change.key = zone["name"], key

    path = edited(LESSONS[0], tmp_path, change)
    assert cli.main(["conform", str(path)]) == 1
    order, mt = change.key.split(",")
    assert f"end state: {change.zone} free list order {order} type {mt}" in capsys.readouterr().out


def test_a_wrong_failure_is_counted(tmp_path: Path) -> None:
    """The kernel's NULL where the model has a page (and the other way round) are counted apart."""

    def change(data) -> None:
        index = next(i for i, op in enumerate(data["ops"]) if op[0] == 1)
        pfn = data["ops"][index][3]
        data["ops"][index][3] = -1
        data["ops"] = [op for op in data["ops"] if op[0] == 1 or op[1] != pfn]

    result = conform(edited(LESSONS[0], tmp_path, change))
    assert result.wrong_failures >= 1
    assert result.first_miss == 0
    assert not result.exact


def test_a_miss_is_not_a_crime(tmp_path: Path) -> None:
    """After a miss the model frees its own page for that call: no false double free, the log stays empty."""

    def change(data) -> None:
        data["ops"] = [[1, 0xCC0, 0, -1], *data["ops"]]

    path = edited(BUDDY[1], tmp_path, change)
    result = conform(path)
    assert result.wrong_failures == 1
    for rule in ("pcp", "batch_scale"):
        assert conform(BUDDY[1], {rule}).predicted > 0


def test_unreadable_files_are_exit_2_and_the_others_go_on(tmp_path: Path, capsys) -> None:
    """One bad file in a list: told in one line on stderr, the rest is still checked, exit 2."""
    bad = tmp_path / "bad.json.gz"
    bad.write_bytes(LESSONS[0].read_bytes()[:1000])
    assert cli.main(["conform", str(bad), str(LESSONS[0]), str(tmp_path / "none.json.gz")]) == 2
    captured = capsys.readouterr()
    assert [line.split(": ")[1] for line in captured.err.splitlines()] == [str(bad), str(tmp_path / "none.json.gz")]
    assert "end states 1 of 3" in captured.out.splitlines()[-1]


def test_unknown_rule_is_exit_2(capsys) -> None:
    """A misspelt rule is told with the list of rules, not ignored."""
    assert cli.main(["conform", "--without", "pcb", str(LESSONS[0])]) == 2
    assert "no such rule; the rules are batch_scale" in capsys.readouterr().err
