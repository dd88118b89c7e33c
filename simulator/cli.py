"""Command line of the simulator: what each command does stands in ``simulator/commands``."""

from configuration.command import new_app
from simulator.commands.compare import compare
from simulator.commands.explain import explain
from simulator.commands.predict import predict
from simulator.commands.presets import list_presets, show
from simulator.commands.sweep import sweep

app = new_app("Predict memory and time of one training step of a Mixture-of-Experts model on a fabric, and say what holds it back.")
app.command("predict")(predict)
app.command("explain")(explain)
app.command("compare")(compare)
app.command("sweep")(sweep)
app.command("list")(list_presets)
app.command("show")(show)
