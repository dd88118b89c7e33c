"""Tokenizers, packing, the cache, windows and their order."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configuration.errors import ConfigurationError
from trainer.data import Batches, prepare
from trainer.data.prepare import cache_folder
from trainer.data.tokenizer import train_tokenizer
from trainer.data.unigram import unigram_cross_entropy
from trainer.specs import DataSpec, TextFiles

TEXT = "the cat sat on the mat and the dog sat on the cat\n" * 20
BEGIN_ID, END_ID = 0, 1
BYTES = train_tokenizer("bytes", [], 258)
PAIRS = train_tokenizer("byte-bpe", [TEXT], 300)


@pytest.mark.parametrize("tokenizer", [BYTES, PAIRS], ids=["bytes", "byte-bpe"])
@given(text=st.text())
def test_any_text_survives_encoding(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_plain_bytes_are_one_id_a_byte():
    assert BYTES.vocabulary == 258
    assert len(BYTES.encode("é\n")) == 3
    assert len(set(BYTES.encode("".join(map(chr, range(128)))))) == 128


def test_pairs_are_learnt_and_shorten_the_text():
    assert PAIRS.vocabulary <= 300
    assert len(PAIRS.encode(TEXT)) < len(TEXT.encode()) / 2


def test_training_a_tokenizer_twice_gives_the_same_one():
    assert train_tokenizer("byte-bpe", [TEXT], 300).to_json() == PAIRS.to_json()


def test_text_that_spells_a_boundary_token_stays_text():
    ids = PAIRS.encode("<|end|>")
    assert END_ID not in ids
    assert len(ids) == 7


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ConfigurationError, match=r"model.vocabulary: .* at least 258 .* got 200"):
        train_tokenizer("bytes", [], 200)


def three_documents(tmp_path, **fields):
    (tmp_path / "text.txt").write_text("ab\ncd\nef\n")
    source = TextFiles(paths=(str(tmp_path / "text.txt"),), document="line")
    return DataSpec(sources=(source,), tokenizer="bytes", validation_fraction=0.1, **fields)


def silent(_):
    pass


def test_documents_are_packed_with_an_end_token_after_each(tmp_path):
    data = prepare(three_documents(tmp_path), 258, silent)
    assert data.training.tolist() == [*BYTES.encode("ab\n"), END_ID, *BYTES.encode("cd\n"), END_ID]
    assert data.validation.tolist() == [*BYTES.encode("ef\n"), END_ID]
    assert data.facts.validation_text_bytes == 3


@pytest.mark.parametrize(("begin", "end", "extra"), [(True, True, 2), (True, False, 1), (False, False, 0)])
def test_boundary_tokens_can_be_chosen(tmp_path, begin, end, extra):
    stream = prepare(three_documents(tmp_path, begin_token=begin, end_token=end), 258, silent).training.tolist()
    assert len(stream) == 2 * (3 + extra)
    assert stream.count(BEGIN_ID) == 2 * begin
    assert stream.count(END_ID) == 2 * end


def test_tokens_are_made_once_and_mapped_from_disk(tmp_path):
    said = []
    first = prepare(three_documents(tmp_path), 300, said.append)
    assert said or (cache_folder() / first.facts.key).is_dir()
    said.clear()
    again = prepare(three_documents(tmp_path), 300, said.append)
    assert said == []
    assert isinstance(again.training, np.memmap)
    assert again.facts == first.facts


def test_another_text_or_setting_is_another_cache_entry(tmp_path):
    keys = {prepare(three_documents(tmp_path, begin_token=begin), 258, silent).facts.key for begin in (True, False)}
    spec = three_documents(tmp_path)
    (tmp_path / "text.txt").write_text("ab\ncd\neg\n")
    keys.add(prepare(spec, 258, silent).facts.key)
    assert len(keys) == 3


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[prepare.__module__], "_mapped", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(three_documents(tmp_path), 258, silent)
    assert list(cache_folder().iterdir()) == []


def test_the_unigram_bar_by_hand():
    # Counts 2 and 1, with one added: shares 3/5 and 2/5. Validation has one token of each.
    expected = -(math.log(3 / 5) + math.log(2 / 5)) / 2
    assert unigram_cross_entropy(np.array([0, 0, 1]), np.array([0, 1]), 2) == pytest.approx(expected)


def test_labels_are_the_sequence_shifted_by_one():
    inputs_BS, labels_BS = Batches(np.arange(21, dtype=np.uint16), 5).at(np.array([0, 2]))
    assert inputs_BS.tolist() == [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]]
    assert labels_BS.tolist() == [[1, 2, 3, 4, 5], [11, 12, 13, 14, 15]]


def test_inputs_and_labels_are_separate_contiguous_int64():
    for tensor in Batches(np.arange(21, dtype=np.uint16), 5).at(np.array([1, 3])):
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == 2 * 5 * 8


def test_windows_predict_every_token_but_the_first_once():
    batches = Batches(np.arange(23, dtype=np.uint16), 5)
    assert batches.windows == 4
    labels = torch.cat([labels_BS.flatten() for _, labels_BS in batches.in_sequence(3)])
    assert labels.tolist() == list(range(1, 21))


@given(windows=st.integers(1, 40), sequences=st.integers(1, 12), seed=st.integers(0, 5))
def test_an_epoch_is_a_permutation_of_the_windows(windows, sequences, seed):
    batches = Batches(np.zeros(windows * 2 + 1, dtype=np.uint16), 2, seed)
    served = np.concatenate([batches.order(step, sequences) for step in range(-(-2 * windows // sequences))])
    assert sorted(served[:windows]) == sorted(served[windows : 2 * windows]) == list(range(windows))


def test_the_order_of_a_step_does_not_depend_on_the_steps_before():
    straight, resumed = (Batches(np.zeros(1001, dtype=np.uint16), 10, seed=3) for _ in range(2))
    served = [straight.order(step, 16).tolist() for step in range(12)]
    assert resumed.order(11, 16).tolist() == served[11]
    assert Batches(np.zeros(1001, dtype=np.uint16), 10, seed=4).order(11, 16).tolist() != served[11]


def test_micro_batches_are_the_step_in_parts():
    batches = Batches(np.arange(101, dtype=np.uint16), 5, seed=1)
    (whole,) = batches.micro_batches(2, 8, 8)
    parts = list(batches.micro_batches(2, 8, 2))
    assert len(parts) == 4
    for index in (0, 1):
        assert torch.equal(torch.cat([part[index] for part in parts]), whole[index])


def test_a_limit_of_validation_tokens_is_rounded_up_to_a_window():
    assert sum(inputs_BS.shape[0] for inputs_BS, _ in Batches(np.arange(101, dtype=np.uint16), 5).in_sequence(4, limit_tokens=11)) == 3


def test_too_few_tokens_for_a_window_are_refused():
    with pytest.raises(ConfigurationError, match=r"plan.sequence: the training data has 5 tokens"):
        Batches(np.arange(5, dtype=np.uint16), 5)


def test_a_tokenizer_file_is_used_as_it_is(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(PAIRS.to_json())
    spec = three_documents(tmp_path).model_copy(update={"tokenizer": str(file), "end_token": "<|begin|>"})
    data = prepare(spec, 1000, silent)
    assert data.training.tolist() == [*PAIRS.encode("ab\n"), 0, *PAIRS.encode("cd\n"), 0]
    assert (data.tokenizer.begin_id, data.tokenizer.end_id, data.facts.vocabulary) == (None, 0, PAIRS.vocabulary)
    file.write_text(BYTES.to_json())
    assert prepare(spec, 1000, silent).facts.key != data.facts.key
    with pytest.raises(ConfigurationError, match="has no token '</s>'"):
        prepare(spec.model_copy(update={"end_token": "</s>"}), 1000, silent)
    with pytest.raises(ConfigurationError, match="does not exist"):
        prepare(spec.model_copy(update={"tokenizer": "gone.json"}), 1000, silent)
