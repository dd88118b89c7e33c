"""One file for each source of text; each yields its documents in a fixed order, as often as it is asked."""

from collections.abc import Iterator

from trainer.data.sources import hugging_face, king_james, python_source, text_files
from trainer.specs import HuggingFaceDataset, KingJames, PythonSource, Source


def documents(source: Source) -> Iterator[str]:
    """The documents of ``source``, without their boundary tokens. Raises ConfigurationError when its text is not there."""
    if isinstance(source, KingJames):
        return king_james.documents(source)
    if isinstance(source, PythonSource):
        return python_source.documents()
    if isinstance(source, HuggingFaceDataset):
        return hugging_face.documents(source)
    return text_files.documents(source)
