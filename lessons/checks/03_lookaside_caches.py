"""Questions of lesson 03 (part 1 in ``caches_shape``, part 2 in ``caches_life``) and its exercises."""

from __future__ import annotations

import caches_exercises
import caches_life
import caches_shape

PREDICTIONS = caches_shape.PREDICTIONS | caches_life.PREDICTIONS
EXERCISES = caches_exercises.EXERCISES
