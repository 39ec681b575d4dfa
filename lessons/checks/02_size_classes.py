"""Questions of lesson 02 (part 1 in ``sizes_given``, part 2 in ``sizes_costs``) and its exercises."""

from __future__ import annotations

import sizes_costs
import sizes_exercises
import sizes_given

PREDICTIONS = sizes_given.PREDICTIONS | sizes_costs.PREDICTIONS
EXERCISES = sizes_exercises.EXERCISES
