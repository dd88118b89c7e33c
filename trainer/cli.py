"""Command line of the trainer: parses and prints."""

from configuration.command import new_app
from trainer.cli_measure import measure

app = new_app("The PyTorch trainer of Mixture-of-Experts language models, and its instruments.")
app.command("measure")(measure)


@app.callback()
def _main() -> None:
    """Keep ``measure`` a command while it is the only one."""
