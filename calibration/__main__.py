"""``python -m calibration``."""

from calibration.cli import app
from configuration.command import run

run(app, "calibration")
