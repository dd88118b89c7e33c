"""``python -m simulator``."""

import gc

# Starting up makes many objects and hardly any garbage: looking for it takes an eighth of the time.
gc.set_threshold(100_000)

from configuration.command import run
from simulator.cli import app

run(app, "simulator")
