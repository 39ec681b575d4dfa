"""Questions of lesson 05 (part 1 in ``pages_lists``, part 2 in ``pages_rules``) and its exercises."""

from __future__ import annotations

import pages_exercises
import pages_lists
import pages_reports
import pages_rules
import pages_scullp

PREDICTIONS = pages_lists.PREDICTIONS | pages_rules.PREDICTIONS
_ALL = pages_exercises.EXERCISES | pages_reports.EXERCISES | pages_scullp.EXERCISES
EXERCISES = dict(sorted(_ALL.items(), key=lambda item: item[1].letter))
