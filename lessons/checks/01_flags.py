"""Questions of lesson 01: where code runs (``flags_sleep``), reclaim (``flags_help``), words (``flags_words``)."""

from __future__ import annotations

import flags_help
import flags_sleep
import flags_words

_ALL = flags_sleep.PREDICTIONS | flags_help.PREDICTIONS | flags_words.PREDICTIONS
ORDER = """changed places match debian onebit atomic bit200 who rest recurse scope lowmem highmem tries d0 which shelf
share""".split()
PREDICTIONS = {name: _ALL[name] for name in ORDER}
EXERCISES = {}
