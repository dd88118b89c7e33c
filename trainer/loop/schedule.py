"""Learning rate of a step."""

import math

from trainer.specs import ConstantSchedule, CosineSchedule, TrainingSpec


def learning_rate(step: int, steps: int, training: TrainingSpec) -> float:
    """Learning rate of step ``step`` (from 0) of ``steps``.

    The warm-up rises linearly and reaches the full rate at its last step; the last step of all has the final rate.
    """
    schedule = training.schedule
    warmup = warmup_steps(steps, training)
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    if isinstance(schedule, CosineSchedule):
        done = (step - warmup) / max(1, steps - 1 - warmup)
        share = schedule.final_fraction + (1 - schedule.final_fraction) * (1 + math.cos(math.pi * done)) / 2
    else:
        cooldown = steps - cooldown_start(steps, training)
        done = max(0, step - (steps - cooldown) + 1) / max(1, cooldown)
        share = 1 - (1 - schedule.final_fraction) * done
    return training.learning_rate * share


def warmup_steps(steps: int, training: TrainingSpec) -> int:
    """Steps of the warm-up of a run of ``steps``."""
    schedule = training.schedule
    if isinstance(schedule, ConstantSchedule) and schedule.warmup_steps is not None:
        return min(schedule.warmup_steps, steps)
    return round(schedule.warmup_fraction * steps)


def cooldown_start(steps: int, training: TrainingSpec) -> int:
    """First step (from 0) of the cooldown of a constant schedule; ``steps`` for a schedule that has none.

    At least the warm-up goes before the cooldown, whatever the two add up to.
    """
    if not isinstance(training.schedule, ConstantSchedule):
        return steps
    return max(steps - round(training.schedule.cooldown_fraction * steps), warmup_steps(steps, training))
