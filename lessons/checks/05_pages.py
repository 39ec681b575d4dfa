"""Questions and exercises of lesson 05: part 1 in ``pages_lists``, part 2 in ``pages_rules``."""

from __future__ import annotations

import pages_lists
import pages_rules

PREDICTIONS = pages_lists.PREDICTIONS | pages_rules.PREDICTIONS
