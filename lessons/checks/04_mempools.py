"""Questions and exercises of lesson 04: one pool (``pools_questions``), several tasks (``pools_deadlock``).

The exercises are in ``pools_rules``, ``pools_tasks`` and ``pools_debug``.
"""

from __future__ import annotations

import pools_deadlock
import pools_debug
import pools_questions
import pools_rules
import pools_tasks

ORDER = """fire first mask drain empty where herd two report smallest one speed gfp lock resize destroy tenant
scull""".split()
_ALL = pools_questions.PREDICTIONS | pools_deadlock.PREDICTIONS
PREDICTIONS = {name: _ALL[name] for name in ORDER}
_EXERCISES = pools_rules.EXERCISES | pools_tasks.EXERCISES | pools_debug.EXERCISES
EXERCISES = dict(sorted(_EXERCISES.items(), key=lambda item: item[1].letter))
