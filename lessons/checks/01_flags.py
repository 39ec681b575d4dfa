"""Questions and exercises of lesson 01.

Part 1 is ``flags_sleep``, reclaim ``flags_help``, words ``flags_words``; the exercises are in ``flags_places`` and
``flags_masks``.
"""

from __future__ import annotations

import flags_help
import flags_masks
import flags_places
import flags_reports
import flags_sleep
import flags_words

ORDER = """changed places match debian onebit atomic bit200 who rest recurse scope lowmem highmem tries d0 which shelf
cure share""".split()
_ALL = flags_sleep.PREDICTIONS | flags_help.PREDICTIONS | flags_words.PREDICTIONS | {"cure": flags_reports.predict_cure}
PREDICTIONS = {name: _ALL[name] for name in ORDER}
_EXERCISES = flags_places.EXERCISES | flags_masks.EXERCISES
EXERCISES = {name: _EXERCISES[name] for name in ("stops_at", "flags_for", "write", "translate", "why", "driver")}
