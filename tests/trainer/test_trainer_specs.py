"""The presets of the trainer, and what their files refuse."""

import pytest

from configuration.errors import ConfigurationError
from trainer.specs import DATA, TRAINING, DataSpec, KingJames, TrainingSpec


@pytest.mark.parametrize("folder", [DATA, TRAINING], ids=["data", "training"])
def test_every_preset_is_valid(folder):
    for name in folder.names():
        folder.load(name)


def test_the_presets_are_those_that_the_manual_names():
    assert DATA.names() == ["hugging-face", "python-source", "simple-corpus", "text-files"]
    assert TRAINING.names() == ["basic"]


def test_basic_spells_out_the_defaults():
    assert TRAINING.load("basic") == TrainingSpec()
    assert TrainingSpec().tokens == 600 * 2_048


def test_simple_corpus_spells_out_the_defaults():
    assert DATA.load("simple-corpus") == DataSpec.model_validate({"sources": [{"kind": "king-james"}]})


@pytest.mark.parametrize(
    ("folder", "preset", "overrides", "fault"),
    [
        (TRAINING, "basic", {"learning_rat": 1}, r"training basic: learning_rat: unknown key; did you mean 'learning_rate'"),
        (TRAINING, "basic", {"schedule.kind": "linear"}, r"schedule: .*'cosine', 'constant'"),
        (TRAINING, "basic", {"checkpoints.keep": 0}, r"checkpoints.keep: .*greater than or equal to 1, got 0"),
        (DATA, "text-files", {"sources.0.paths": []}, r"paths: .*at least 1 item"),
        (DATA, "simple-corpus", {"tokenizer": "words"}, r"tokenizer .*'words'.*: legal are byte-bpe, bytes and the path of a tokenizer.json"),
    ],
)
def test_a_fault_names_file_field_and_legal_values(folder, preset, overrides, fault):
    with pytest.raises(ConfigurationError, match=fault):
        folder.load(preset, overrides)


def test_one_path_needs_no_brackets():
    assert DATA.load("text-files", {"sources.0.paths": "a.txt"}).sources[0].paths == ("a.txt",)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"end_token": "</s>"}, r"end_token \('</s>'\): the tokenizer byte-bpe has '<|end|>'"),
        ({"tokenizer": "mine.json"}, "end_token: mine.json does not say which of its tokens that is: give its name"),
    ],
)
def test_boundary_tokens_are_named_where_only_a_name_can_tell(fields, told):
    with pytest.raises(ValueError, match=told.replace("|", r"\|")):
        DataSpec(sources=(KingJames(),), **fields)
