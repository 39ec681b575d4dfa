"""Questions and exercises of lesson 04: one pool (``pools_questions``), several tasks (``pools_deadlock``)."""

from __future__ import annotations

import pools_deadlock
import pools_questions

ORDER = (
    """fire first mask drain empty where herd two report smallest one speed gfp lock resize destroy tenant""".split()
)
_ALL = pools_questions.PREDICTIONS | pools_deadlock.PREDICTIONS
PREDICTIONS = {name: _ALL[name] for name in ORDER}
EXERCISES = {}
