"""``python -m reports``."""

from configuration.command import run
from reports.cli import app

run(app, "reports")
