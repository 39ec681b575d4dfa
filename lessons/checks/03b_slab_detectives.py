"""Questions (``detectives_reports``) and exercises (``detectives_exercises``) of lesson 03b."""

from __future__ import annotations

import detectives_exercises
import detectives_reports

PREDICTIONS = detectives_reports.PREDICTIONS
EXERCISES = detectives_exercises.EXERCISES
