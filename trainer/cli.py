"""Command line of the trainer: parses and prints."""

from configuration.command import new_app
from trainer.cli_bench import bench
from trainer.cli_generate import generate
from trainer.cli_hugging_face import export, import_
from trainer.cli_inspect import inspect
from trainer.cli_measure import measure
from trainer.cli_presets import list_presets, show
from trainer.cli_pretrain import pretrain
from trainer.cli_sweep import sweep

app = new_app("The PyTorch trainer of Mixture-of-Experts language models, and its instruments.")
app.command("pretrain")(pretrain)
app.command("measure")(measure)
app.command("bench")(bench)
app.command("generate")(generate)
app.command("inspect")(inspect)
app.command("export")(export)
app.command("import")(import_)
app.command("sweep")(sweep)
app.command("list")(list_presets)
app.command("show")(show)
