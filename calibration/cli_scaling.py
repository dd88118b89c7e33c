"""``python -m calibration scaling``: fit scaling laws to a run table and ask them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configuration.command import CheckMissedError, emit, new_app
from configuration.errors import ConfigurationError

if TYPE_CHECKING:
    from calibration.scaling.cluster import Cluster
    from calibration.scaling.gates import Gates
    from calibration.scaling.objective import Objective
    from calibration.scaling.points import Points

scaling_app = new_app("Scaling laws: loss against parameters, tokens and experts, fitted to a table of runs.")

Runs = Annotated[Path, typer.Option(help="Run table (CSV).")]
Columns = Annotated[str | None, typer.Option(help="Columns of a foreign table: n=..,d=..,loss=.. (also c, e, u, total, run, any field).")]
Delta = Annotated[float, typer.Option(help="Huber's delta on the log loss; 'inf' is least squares.")]
Count = Annotated[str, typer.Option(help="What N counts: active, active-non-embedding or total parameters.")]
Priors = Annotated[list[str] | None, typer.Option("--prior", help="Normal prior NAME=MEAN:SD on a coefficient (on its logarithm for a factor); repeatable.")]
Band = Annotated[str, typer.Option(metavar="LOW,HIGH", help="Runs outside this band of D/N do not enter the fit.")]
Resamples = Annotated[int, typer.Option(min=100, help="Bootstrap refits.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of random starts and of the bootstrap.")]
Fabric = Annotated[str | None, typer.Option(help="Fabric (preset or YAML) that training would run on.")]
Template = Annotated[str | None, typer.Option(help="Model (preset or YAML) that is scaled in width and depth to be timed on --fabric.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Write the JSON document to this file.")]


@scaling_app.callback()
def _scaling() -> None:
    """Scaling laws: loss against parameters, tokens and experts, fitted to a table of runs."""


@scaling_app.command("fit", epilog="Examples: python -m calibration scaling fit --runs runs.csv --law chinchilla; ... fit --runs runs.csv --law auto")
def fit_command(
    runs: Runs,
    law: Annotated[str, typer.Option(help="Law to fit (see 'scaling laws'); 'auto' takes the one that foretells best.")] = "chinchilla",
    columns: Columns = None,
    holdout_above: Annotated[float | None, typer.Option(metavar="FLOPS", help="Keep runs of more training FLOPs out of the fit, to test it.")] = None,
    at: Annotated[str | None, typer.Option(metavar="N,D[,E]", help="Judge here, for one 70e9,1.4e12; the run of most compute when left out.")] = None,
    delta: Delta = 1e-3,
    prior: Priors = None,
    count: Count = "active",
    tokens_per_parameter: Band = "0.41,1000",
    fabric: Fabric = None,
    model: Template = None,
    origins: Annotated[int, typer.Option(min=0, help="Rolling cuts of the backtest; 0 leaves it at the held-out runs.")] = 5,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Fit a law to a run table: coefficients with intervals, the certificate of the optimum, backtest and verdict."""
    from calibration.scaling.choice import law_or_auto
    from calibration.scaling.display import show_fit
    from calibration.scaling.document import fit_document
    from calibration.scaling.fit import FitError
    from calibration.scaling.study import Settings, study
    from simulator.records.run_table import parse_columns, read_table

    chosen = law_or_auto(law)
    if holdout_above is not None and not holdout_above > 0:
        raise ConfigurationError(f"--holdout-above: expected a positive number of FLOPs, got {holdout_above}")
    settings = Settings(_objective(delta, prior), _gates(tokens_per_parameter), count, holdout_above, origins, resamples, seed)
    cluster = _cluster(model, fabric, None, count)
    table = read_table(runs, parse_columns(columns) if columns else None)
    try:
        findings = study(table, chosen, settings, _point(at), None if cluster is None else cluster.hours)
    except ConfigurationError as error:
        raise ConfigurationError(f"{runs}: {error}") from None
    except FitError as error:
        raise CheckMissedError(f"{runs}: {error}") from None
    document = fit_document(findings)
    emit(document, as_json=as_json, output=output, show=lambda console: show_fit(console, document))


@scaling_app.command(
    "optimal",
    epilog="Examples: python -m calibration scaling optimal --runs runs.csv --flops 1e20; "
    "... optimal --law joint-moe --published ludziejewski --hours 24 --fabric spine-leaf --model tiny-moe",
)
def optimal_command(
    flops: Annotated[float | None, typer.Option(metavar="FLOPS", help="Budget: 6 N D (and 2 N for each token of inference).")] = None,
    hours: Annotated[float | None, typer.Option(help="Budget: hours on --fabric, by the simulator's step times.")] = None,
    fabric: Fabric = None,
    model: Template = None,
    plan: Annotated[str | None, typer.Option(help="Plan (preset or YAML) of the timed models; the simulator's default one when left out.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Run table (CSV) to fit the law to.")] = None,
    published: Annotated[str | None, typer.Option(help="Published coefficient set instead of a table (see 'scaling laws').")] = None,
    law: Annotated[str, typer.Option(help="Law (see 'scaling laws'); with --runs also 'auto', the one that foretells best.")] = "chinchilla",
    columns: Columns = None,
    experts: Annotated[str | None, typer.Option(metavar="E,E,..", help="Numbers of experts to choose from; those of the table when left out.")] = None,
    top_k: Annotated[float, typer.Option(min=1, help="Experts per token.")] = 1,
    memory: Annotated[float | None, typer.Option(metavar="GB", help="Most GB (1e9 bytes) of training state, 16 bytes for each of all parameters.")] = None,
    inference_tokens: Annotated[float, typer.Option(min=0, help="Tokens that the trained model will serve, counted into the budget.")] = 0,
    unique_tokens: Annotated[float | None, typer.Option(help="Different tokens at hand; more are repeated (law data-constrained).")] = None,
    delta: Delta = 1e-3,
    prior: Priors = None,
    count: Count = "active",
    tokens_per_parameter: Band = "0.41,1000",
    resamples: Resamples = 1000,
    seed: Seed = 0,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """Divide a compute budget between parameters, tokens and experts; cross-checked by isoFLOP parabolas and the envelope of the runs."""
    from calibration.scaling.allocation import Budget
    from calibration.scaling.choice import law_or_auto
    from calibration.scaling.display import show_hours, show_optimal
    from calibration.scaling.fit import FitError
    from calibration.scaling.laws import law_named
    from calibration.scaling.optimal import Source, hours_document, optimal_document, source_of_published, source_of_table
    from calibration.scaling.study import Settings
    from simulator.records.run_table import parse_columns, read_table

    if (flops is None) == (hours is None):
        raise ConfigurationError("give one of --flops and --hours")
    for name, value in (("--flops", flops), ("--hours", hours)):
        if value is not None and not value > 0:
            raise ConfigurationError(f"{name}: expected a positive number, got {value}")
    if (runs is None) == (published is None):
        raise ConfigurationError("give one of --runs (a table to fit) and --published (a coefficient set)")
    cluster = _cluster(model, fabric, plan, count)
    if (hours is None) != (cluster is None):
        raise ConfigurationError("--hours goes with --fabric and --model, the model that is scaled to be timed there")
    if hours is not None and (memory is not None or inference_tokens or unique_tokens is not None):
        raise ConfigurationError("--hours: the device sets the memory; --memory, --inference-tokens and --unique-tokens go with --flops")
    source: Source
    if runs is None:
        source = source_of_published(law_named(law), str(published))
    else:
        chosen = law_or_auto(law)
        settings = Settings(_objective(delta, prior), _gates(tokens_per_parameter), count, resamples=resamples, seed=seed)
        table = read_table(runs, parse_columns(columns) if columns else None)
        try:
            source = source_of_table(table, chosen, settings)
        except ConfigurationError as error:
            raise ConfigurationError(f"{runs}: {error}") from None
        except FitError as error:
            raise CheckMissedError(f"{runs}: {error}") from None
    levels = None if experts is None else _experts(experts)
    if flops is not None:
        document = optimal_document(source, Budget(flops, inference_tokens, unique_tokens), levels, top_k, memory)
        emit(document, as_json=as_json, output=output, show=lambda console: show_optimal(console, document))
    elif hours is not None and cluster is not None:
        timed = hours_document(source, hours, cluster, levels)
        emit(timed, as_json=as_json, output=output, show=lambda console: show_hours(console, timed))


def _cluster(model: str | None, fabric: str | None, plan: str | None, count: str) -> "Cluster | None":
    from calibration.scaling.cluster import Cluster

    if (model is None) != (fabric is None):
        raise ConfigurationError("--fabric and --model go together: a fabric is timed with a model scaled in width and depth")
    return None if model is None or fabric is None else Cluster(model, fabric, plan, count)


@scaling_app.command(
    "table",
    epilog="Example: python -m calibration scaling table --trainer-state out/trainer_state.json --run base --active-parameters 1.1e9 -o runs.csv",
)
def table_command(
    run: Annotated[str, typer.Option(help="Name of the run; a row of this name is replaced.")],
    active_parameters: Annotated[float, typer.Option(help="Parameters that one token passes through.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Run table (CSV) that gets the row; made when absent.")],
    trainer_state: Annotated[Path | None, typer.Option(help="trainer_state.json of Hugging Face's Trainer.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="TensorBoard event file, or the folder of one run.")] = None,
    loss_tag: Annotated[str | None, typer.Option(help="Scalar of the validation loss in nats per token (TensorBoard); default eval/loss.")] = None,
    tokens_tag: Annotated[str | None, typer.Option(help="Scalar that counts tokens (TensorBoard).")] = None,
    total_parameters: Annotated[float | None, typer.Option(help="All parameters; the active ones when left out.")] = None,
    experts: Annotated[int, typer.Option(min=1, help="Experts of a layer.")] = 1,
    top_k: Annotated[int, typer.Option(min=1, help="Experts per token.")] = 1,
    tokens_per_step: Annotated[float | None, typer.Option(help="Tokens of a step, where the log does not count them.")] = None,
) -> None:
    """Add a run to a run table from the log of Hugging Face's Trainer or from TensorBoard's event files."""
    from calibration.scaling import tensorboard_log
    from calibration.scaling import trainer_state as trainer_log
    from configuration.command import stdout
    from simulator.records.run_table import append_row

    values = {"run": run, "active_parameters": active_parameters, "total_parameters": total_parameters or active_parameters, "experts": experts, "top_k": top_k}
    if tensorboard is None and (loss_tag is not None or tokens_tag is not None):
        raise ConfigurationError("--loss-tag and --tokens-tag go with --tensorboard")
    if tokens_tag is not None and tokens_per_step is not None:
        raise ConfigurationError("give one of --tokens-tag and --tokens-per-step")
    if trainer_state is not None and tensorboard is None:
        row = trainer_log.row_of(trainer_state, values, tokens_per_step)
    elif tensorboard is not None and trainer_state is None:
        row = tensorboard_log.row_of(tensorboard, values, loss_tag or "eval/loss", tokens_per_step, tokens_tag)
    else:
        raise ConfigurationError("give one of --trainer-state and --tensorboard")
    append_row(output, row)
    stdout().print(f"{output}: {row.run}, {row.tokens:.4g} tokens, loss {row.validation_loss_nats_per_token:.4f} nats per token")


@scaling_app.command("laws", epilog="Example: python -m calibration scaling laws --json")
def laws_command(as_json: Json = False, output: Output = None) -> None:
    """List the laws, what a table must vary for each, and their published coefficients."""
    from calibration.scaling.display import show_laws
    from calibration.scaling.document import laws_document

    document = laws_document()
    emit(document, as_json=as_json, output=output, show=lambda console: show_laws(console, document))


def _objective(delta: float, priors: list[str] | None) -> "Objective":
    from calibration.scaling.objective import Objective, parse_priors

    if not delta > 0:
        raise ConfigurationError(f"--delta: expected a positive number, got {delta}")
    return Objective(delta, parse_priors(priors or []))


def _gates(text: str) -> "Gates":
    from calibration.scaling.gates import Gates

    low, _, high = text.partition(",")
    try:
        band = (float(low), float(high))
    except ValueError:
        band = (1.0, 0.0)
    if not 0 <= band[0] < band[1]:
        raise ConfigurationError(f"--tokens-per-parameter {text!r}: expected LOW,HIGH with LOW below HIGH, for one 3,300")
    return Gates(tokens_per_parameter=band)


def _experts(text: str) -> list[float]:
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if not levels or not all(1 <= level < float("inf") for level in levels):
        raise ConfigurationError(f"--experts {text!r}: expected numbers from 1, for one 1,8,64")
    return levels


def _point(text: str | None) -> "Points | None":
    from calibration.scaling.points import points_at

    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or not all(0 < number < float("inf") for number in numbers):
        raise ConfigurationError(f"--at {text!r}: expected N,D or N,D,E as positive numbers, for one 70e9,1.4e12")
    return points_at(numbers[0], numbers[1], experts=numbers[2] if len(numbers) == 3 else 1.0)
