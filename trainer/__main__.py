"""``python -m trainer``."""

from configuration.command import run
from trainer.cli import app

run(app, "trainer")
