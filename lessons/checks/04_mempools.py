"""Questions and exercises of lesson 04: the exercises are in ``pools_rules``, ``pools_tasks`` and ``pools_debug``."""

from __future__ import annotations

from typing import Any

import pools_debug
import pools_rules
import pools_tasks

PREDICTIONS: dict[str, Any] = {}
_ALL = pools_rules.EXERCISES | pools_tasks.EXERCISES | pools_debug.EXERCISES
EXERCISES = dict(sorted(_ALL.items(), key=lambda item: item[1].letter))
