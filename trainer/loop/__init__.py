"""The training loop and what hangs on it: schedule, evaluation, log, run folder, interruption."""
