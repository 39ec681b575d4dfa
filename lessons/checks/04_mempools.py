"""Questions and exercises of lesson 04: the exercises are in ``pools_rules``, ``pools_tasks`` and ``pools_debug``."""

from __future__ import annotations

import pools_rules

PREDICTIONS = {}
EXERCISES = pools_rules.EXERCISES
