"""The frame that all command lines share: exit codes, results on stdout, everything else on stderr."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from configuration.errors import ConfigurationError
from configuration.files import write_atomically

if TYPE_CHECKING:
    from rich.console import Console


def new_app(help_text: str) -> typer.Typer:
    """A typer application that shows its help without arguments and leaves tracebacks to ``run``."""
    return typer.Typer(help=help_text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


EXTRAS = {"torch": "train", "tokenizers": "train", "safetensors": "train"}
"""Packages that some commands cannot do without, and the extra that brings them."""


class CheckMissedError(Exception):
    """A tolerance that the user asked to be held (``--check``) was missed, or a run failed: exit code 1."""


def run(app: typer.Typer, program: str) -> None:
    """Run ``app`` as ``python -m program`` and leave the process.

    Exit codes: 0 answered; 1 the run failed or a check was missed; 2 bad usage or configuration, told in one line; 130 interrupted.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(prog_name=f"python -m {program}", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except ConfigurationError as error:
        _leave(str(error), 2)
    except CheckMissedError as error:
        _leave(str(error), 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        _leave(f"{error.filename or 'file'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        _leave(f"{program} needs the package {error.name}, which is not installed (pip install 'moe-ledger[{EXTRAS[error.name]}]')", 2)
    except Exception as error:
        # typer carries a copy of click that has no public name: its exceptions are told by their own names and attributes.
        if type(error).__name__ == "Abort":
            _leave("interrupted", 130)
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
            sys.exit(2)
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context is not None else ""
        _leave(" ".join(str(error.format_message()).split()) + hint, 2)


def _leave(message: str, code: int) -> None:
    # Of processes that were started together, all find a fault of the configuration: the first one tells it.
    if code != 2 or os.environ.get("RANK", "0") == "0":
        print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def emit(document: dict[str, Any], *, as_json: bool, output: Path | None, show: Callable[["Console"], None]) -> None:
    """Give a result: ``output`` gets the JSON document atomically; stdout gets it too with ``as_json``, else what ``show`` draws."""
    if not _written(document, as_json, output):
        show(stdout())


def emit_text(document: dict[str, Any], *, as_json: bool, output: Path | None, text: Callable[[], str]) -> None:
    """Like ``emit``, for results in plain text."""
    if not _written(document, as_json, output):
        print(text())


def _written(document: dict[str, Any], as_json: bool, output: Path | None) -> bool:
    if output is not None:
        write_atomically(output, to_json(document))
    if as_json:
        sys.stdout.write(to_json(document))
    return as_json


def to_json(document: Any) -> str:
    """JSON text with a closing newline; numbers are finite by contract."""
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def stdout() -> "Console":
    """A rich console on stdout; as wide as its content when that is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def stderr() -> "Console":
    """A rich console on stderr for logs, progress and warnings."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
