"""``python -m simulator``."""

import atexit
import gc

# Starting up makes many objects and hardly any garbage, and what is alive at the end the system takes back: looking for garbage
# in either would take a quarter of a short command's time.
gc.disable()
atexit.register(gc.freeze)

from configuration.command import run
from simulator.cli import app

gc.freeze()
gc.set_threshold(100_000)
gc.enable()

run(app, "simulator")
