"""``python -m simulator``."""

from configuration.command import run
from simulator.cli import app

run(app, "simulator")
