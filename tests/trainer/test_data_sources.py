"""Documents: what the sources yield, how they are split, and what is refused."""

import json
import sys

import pytest

from configuration.errors import ConfigurationError
from trainer.data.corpus import read_corpus
from trainer.data.sources import documents
from trainer.specs import DATA, DataSpec, HuggingFaceDataset, KingJames, TextFiles


def test_the_king_james_text_is_there_without_a_download():
    chapters = list(documents(KingJames()))
    assert len(chapters) == 1_189
    assert chapters[0].startswith("In the beginning God created the heaven and the earth.\nAnd the earth was without form")
    assert chapters[-1].endswith("The grace of our Lord Jesus Christ be with you all. Amen.\n")


def test_books_chapters_and_verses_hold_the_same_text():
    texts = {kind: list(documents(KingJames(document=kind))) for kind in ("book", "chapter", "verse")}
    assert len(texts["book"]) == 66
    assert len({"".join(parts) for parts in texts.values()}) == 1


def test_the_standard_library_is_a_corpus():
    files = list(documents(DATA.load("python-source").sources[0]))
    assert len(files) > 500
    assert sum(map(len, files)) > 5e6


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "b.txt").write_text("second\n")
    (tmp_path / "a.txt").write_text("first one\n\nfirst two\nits second line\n")
    (tmp_path / ".hidden").write_text("hidden")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.md").write_text("third\n")
    return tmp_path


def test_a_folder_gives_all_its_files_in_order(folder):
    texts = list(documents(TextFiles(paths=(str(folder),))))
    assert texts == ["first one\n\nfirst two\nits second line\n", "second\n", "third\n"]


def test_files_and_globs_come_in_the_order_given(folder):
    texts = list(documents(TextFiles(paths=(str(folder / "b.txt"), str(folder / "**" / "*.md")))))
    assert texts == ["second\n", "third\n"]


@pytest.mark.parametrize(
    ("document", "expected"),
    [("paragraph", ["first one\n", "first two\nits second line\n"]), ("line", ["first one\n", "first two\n", "its second line\n"])],
)
def test_a_document_may_be_a_paragraph_or_a_line(folder, document, expected):
    assert list(documents(TextFiles(paths=(str(folder / "a.txt"),), document=document))) == expected


def test_a_missing_file_and_an_empty_glob_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"'nowhere.txt' does not exist"):
        list(documents(TextFiles(paths=("nowhere.txt",))))
    with pytest.raises(ConfigurationError, match="holds no file"):
        list(documents(TextFiles(paths=(str(tmp_path / "*.txt"),))))


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "picture.txt").write_bytes(b"abc\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"picture.txt is not UTF-8 text \(byte 3\)"):
        list(documents(TextFiles(paths=(str(tmp_path),))))


def lines(tmp_path, text, **fields):
    (tmp_path / "text.txt").write_text(text)
    return DataSpec(sources=(TextFiles(paths=(str(tmp_path / "text.txt"),), document="line"),), **fields)


def test_the_last_whole_documents_are_held_out(tmp_path):
    # Ten documents of ten bytes; a quarter of the bytes needs three whole documents.
    corpus = read_corpus(lines(tmp_path, "".join(f"line {n:04d}\n" for n in range(10)), validation_fraction=0.25))
    assert [text[-2] for text in corpus.validation_texts()] == ["7", "8", "9"]
    assert len(list(corpus.training_texts())) == 7


def test_every_source_gives_its_own_share(tmp_path):
    (tmp_path / "one").write_text("a\nb\n")
    (tmp_path / "two").write_text("c\nd\n")
    sources = tuple(TextFiles(paths=(str(tmp_path / name),), document="line") for name in ("one", "two"))
    corpus = read_corpus(DataSpec(sources=sources, validation_fraction=0.5))
    assert list(corpus.training_texts()) == ["a\n", "c\n"]
    assert list(corpus.validation_texts()) == ["b\n", "d\n"]


def test_a_lone_document_is_cut_at_a_line_end(tmp_path):
    corpus = read_corpus(lines(tmp_path, "x" * 30, validation_fraction=0.5))
    assert (list(corpus.training_texts()), list(corpus.validation_texts())) == (["x" * 15], ["x" * 15])
    (tmp_path / "file").write_text("0123456\n" * 4)
    corpus = read_corpus(DataSpec(sources=(TextFiles(paths=(str(tmp_path / "file"),)),), validation_fraction=0.4))
    assert list(corpus.training_texts()) == ["0123456\n" * 2]


def test_a_source_without_text_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no text"):
        read_corpus(lines(tmp_path, "\n\n"))


def test_the_fingerprint_follows_the_text(tmp_path):
    before = read_corpus(lines(tmp_path, "a\nb\n")).fingerprint
    assert read_corpus(lines(tmp_path, "a\nb\n")).fingerprint == before
    assert read_corpus(lines(tmp_path, "a\nc\n")).fingerprint != before


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Three texts and an empty one, as JSON lines and as parquet."""
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed (extra hf)")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    content = [{"content": text, "number": number} for number, text in enumerate(["first\n", "", "zweiter: é\n", "third"])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    datasets.Dataset.from_list(content).to_parquet(tmp_path / "rows.parquet")
    return tmp_path


@pytest.mark.parametrize(("path", "file"), [("json", "rows.jsonl"), ("parquet", "rows.parquet")])
def test_rows_of_a_data_set_are_documents(rows, path, file):
    source = HuggingFaceDataset(path=path, data_files=str(rows / file), column="content")
    assert list(documents(source)) == ["first\n", "zweiter: é\n", "third"]
    assert list(documents(source.model_copy(update={"split": "train[:2]"}))) == ["first\n"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"column": "text"}, r"has no column 'text' \(legal: content, number\)"),
        ({"column": "number"}, "column 'number' of json holds int, expected text"),
        ({"data_files": "gone.jsonl"}, "json cannot be loaded: .*gone.jsonl"),
        ({"split": "test"}, "json cannot be loaded: .*test"),
    ],
)
def test_what_a_data_set_lacks_is_one_line(rows, fields, told):
    given = {"path": "json", "data_files": str(rows / "rows.jsonl"), "column": "content"} | fields
    with pytest.raises(ConfigurationError, match=told) as refused:
        list(documents(HuggingFaceDataset(**given)))
    assert "\n" not in str(refused.value)


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'moe-ledger\[hf\]'"):
        list(documents(HuggingFaceDataset(path="json")))
