"""``python -m calibration``: fit the simulator and scaling laws to measurements."""

from calibration.cli_fit import fit, validate
from calibration.cli_host import fit_host
from calibration.cli_links import fit_links
from calibration.cli_scaling import scaling_app
from configuration.command import new_app

app = new_app("Calibration: fit the simulator to measurements, and scaling laws to runs.")
app.add_typer(scaling_app, name="scaling")
app.command()(fit)
app.command()(fit_host)
app.command()(fit_links)
app.command()(validate)
