"""``python -m fabrics``."""

from configuration.command import run
from fabrics.cli import app

run(app, "fabrics")
