"""The leak hunt: every seed can be won by looking, not by guessing; tools cost what they say."""

from __future__ import annotations

import random

import pytest

from kmemlab.slabinfo import HEAD
from kmemlab_widgets.leak_hunt import COSTS, LEVELS, NIGHT, LeakHunt
from tests.hunting import look

SEEDS = range(8)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", SEEDS)
def test_looking_wins(level: int, seed: int) -> None:
    hunt = LeakHunt(level, seed)
    assert hunt.accuse(*look(hunt)).startswith("Right."), (hunt.path, hunt._culprit)
    assert hunt.score is not None
    assert hunt.score >= NIGHT - 45


def test_guessing_loses() -> None:
    rng, won = random.Random(1), 0
    for seed in range(40):
        hunt = LeakHunt(1, seed)
        for driver in rng.sample(hunt._drivers, 2):
            hunt.accuse(driver.cache_name, rng.choice(driver.sites))
        won += bool(hunt.score)
    assert won < 10


@pytest.mark.parametrize("level", LEVELS)
def test_one_site_grows_and_only_one(level: int) -> None:
    for seed in SEEDS:
        hunt = LeakHunt(level, seed)
        guilty = [driver for driver in hunt._drivers if driver.guilty]
        assert len(guilty) == 1
        held, live = sum(len(d.held) for d in hunt._drivers), len(hunt.m.live)
        hunt.wait(10)
        lost = len(hunt.m.live) - sum(len(d.held) for d in hunt._drivers)
        assert lost > live - held > 0, "what nobody holds is lost, and it grows"
        assert hunt.m.check()


def test_the_same_seed_is_the_same_night() -> None:
    assert LeakHunt(2, 5).slabinfo() == LeakHunt(2, 5).slabinfo() != LeakHunt(2, 6).slabinfo()


@pytest.mark.parametrize(
    ("kind", "level", "why"),
    [
        ("constant", 2, "large is not growing"),
        ("reclaimable", 2, "SUnreclaim does not move"),
        ("ratchet", 2, "one in each slab"),
        ("twin", 3, "Half right"),
        ("steady", 1, "does not grow"),
    ],
)
def test_wrong_accusations_get_their_reason(kind: str, level: int, why: str) -> None:
    hunt = LeakHunt(level, 1)
    driver = next(each for each in hunt._drivers if each.kind == kind and not each.guilty)
    said = hunt.accuse(driver.cache_name, driver.sites[0])
    assert why in said
    assert said.endswith("One more try.")


def test_right_cache_wrong_site_then_the_end() -> None:
    hunt = LeakHunt(1, 1)
    culprit = hunt._culprit
    other = next(site for site in culprit.sites if site != culprit.guilty)
    assert "another site" in hunt.accuse(culprit.cache_name, other)
    said = hunt.accuse("nobody", "nowhere")
    assert "No driver has a cache 'nobody'." in said
    assert culprit.guilty in said
    assert hunt.score == 0
    assert hunt.accuse(culprit.cache_name, culprit.guilty) == "The night is over."
    with pytest.raises(ValueError, match="the night is over"):
        hunt.slabinfo()


def test_each_tool_costs_what_help_says() -> None:
    hunt = LeakHunt(2, 1)
    name = hunt.drivers[0]
    calls = {
        "meminfo": (), "slabinfo": (), "drop_caches": (), "source": (name,), "aliases": (name,), "shrink": (name,),
        "traces": (name,), "reboot": ("slab_nomerge",),
    }  # fmt: skip
    assert set(calls) == set(COSTS)
    for tool, arguments in calls.items():
        before = hunt.left
        getattr(hunt, tool)(*arguments)
        assert before - hunt.left == COSTS[tool]
        assert f"{COSTS[tool]:3d} min  hunt.{tool}(" in hunt.help()
    assert repr(hunt).endswith(f"{hunt.left} minutes left. hunt.help()")


def test_what_the_tools_show() -> None:
    hunt = LeakHunt(2, 3)
    reclaimable = next(driver for driver in hunt._drivers if driver.kind == "reclaimable")
    before = hunt.meminfo()
    hunt.drop_caches()
    after = hunt.meminfo()
    assert int(after.split()[4]) < int(before.split()[4]), "SReclaimable fell"
    assert "No such file" in hunt.traces(reclaimable.name)
    assert "after" in hunt.shrink(reclaimable.name)
    culprit = hunt._culprit
    bad, good = (hunt.source(culprit.name).split("static int")[1:][i] for i in (0, 1))
    if culprit.guilty == culprit.sites[1]:
        bad, good = good, bad
    assert "kmem_cache_free" not in bad
    assert "kmem_cache_free" in good
    assert "active" in HEAD


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="level must be 1 to 5, not 9"):
        LeakHunt(9)
    hunt = LeakHunt(1, 1)
    for call in (lambda: hunt.source("nobody"), lambda: hunt.traces("nobody"), lambda: hunt.wait(0)):
        with pytest.raises(ValueError, match=r"nobody|minutes"):
            call()
    with pytest.raises(ValueError, match="the pager rings in 60"):
        hunt.wait(61)
    with pytest.raises(ValueError, match="slub_debug"):
        hunt.reboot("slub_debug=Q")
    assert hunt.left == NIGHT, "what did not work costs nothing"
