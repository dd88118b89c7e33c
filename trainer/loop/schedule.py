"""Learning rate of a step."""

import math

from trainer.specs import CosineSchedule, TrainingSpec


def learning_rate(step: int, steps: int, training: TrainingSpec) -> float:
    """Learning rate of step ``step`` (from 0) of ``steps``.

    The warm-up rises linearly and reaches the full rate at its last step; the last step of all has the final rate.
    """
    schedule = training.schedule
    warmup = round(schedule.warmup_fraction * steps)
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    if isinstance(schedule, CosineSchedule):
        done = (step - warmup) / max(1, steps - 1 - warmup)
        share = schedule.final_fraction + (1 - schedule.final_fraction) * (1 + math.cos(math.pi * done)) / 2
    else:
        # At least the warm-up goes before the cooldown, whatever the two fractions add up to.
        cooldown = min(round(schedule.cooldown_fraction * steps), steps - warmup)
        done = max(0, step - (steps - cooldown) + 1) / max(1, cooldown)
        share = 1 - (1 - schedule.final_fraction) * done
    return training.learning_rate * share
