"""Attention within documents: a packed window computes what its documents compute alone."""

import pytest
import torch

from configuration.errors import ConfigurationError
from simulator.specs import Plan, load_model, load_plan
from trainer.checkpoints import find_checkpoint
from trainer.data.tokenizer import document_start, train_tokenizer
from trainer.inference import open_model
from trainer.loop.run import train
from trainer.model import build_model
from trainer.specs import DataSpec, KingJames

END = 1
WIDTHS = {"width": 32, "vocabulary": 64, "blocks.0.count": 2, "blocks.0.mixer.heads": 4, "blocks.0.mixer.kv_heads": 2, "blocks.0.mixer.head_width": 8}
WIDTHS |= {"blocks.0.feed_forward.experts": 4, "blocks.0.feed_forward.expert_width": 16}


def model_of(**plan):
    spec = load_model("tiny-moe", WIDTHS)
    plan, _ = load_plan(spec, None, {"sequence": 16, "micro_batch": 2, "attention_across_documents": False, **plan})
    model = build_model(spec, plan, seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
    return model


def window(seed=0):
    """Two sequences of 16: a document of 6 tokens, one of 4, one that goes on; and one document alone."""
    ids = torch.randint(2, 64, (2, 16), generator=torch.Generator().manual_seed(seed))
    ids[0, [6, 11]] = END
    return ids


@pytest.mark.parametrize("plan", [{}, {"implementation.experts": "loop"}, {"recomputation": "full"}], ids=str)
def test_a_packed_window_has_the_logits_of_its_documents(plan):
    model, ids = model_of(**plan), window()
    with torch.no_grad():
        packed = model.logits(ids)
        for start, end in ((0, 6), (6, 11), (11, 16)):
            alone = model.logits(ids[:1, start:end])
            torch.testing.assert_close(packed[:1, start:end], alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(packed[1:], model.logits(ids[1:]), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(build_free(model).logits(ids)[0, 6:], packed[0, 6:], atol=1e-2)


def build_free(model):
    free = build_model(model.spec, Plan(sequence=16, micro_batch=2), seed=2)
    free.load_state_dict(model.state_dict())
    return free


def test_losses_do_not_depend_on_other_documents():
    model, ids = model_of(), window()
    labels = ids.roll(-1, 1)
    other = ids.clone()
    other[0, :6] = window(seed=1)[0, :6]
    with torch.no_grad():
        losses, _ = model.token_losses(ids, labels)
        changed, _ = model.token_losses(other, labels)
    # From the end token on, which predicts the first token of the second document.
    torch.testing.assert_close(losses[0, 6:], changed[0, 6:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(losses[0, :6], changed[0, :6], atol=1e-2)


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_gradients_do_not_cross_documents(precision):
    model, ids = model_of(precision=precision), window()
    seen = {}
    embedded = model.embedded

    def watched(inputs):
        seen["x"] = embedded(inputs).detach().requires_grad_()
        return seen["x"]

    model.embedded = watched
    model.finished(model._decoded(ids, [])).view(2, 16, -1)[0, 6:11].float().sum().backward()
    gradient = seen["x"].grad.view(2, 16, -1)[0].abs().sum(-1)
    assert (gradient > 0).tolist() == [6 <= position < 11 for position in range(16)]


def test_attention_maps_show_the_mask():
    model, ids = model_of(), window()
    with torch.no_grad():
        for weights in model.attention_weights(ids):
            assert weights[0, :, 6:, :6].max() == 0
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_a_run_learns_evaluates_and_is_opened_with_its_documents_apart(experiment_of, tmp_path):
    few = ("training.tokens=2560", "training.checkpoints.interval_steps=100")
    apart = train(experiment_of(*few, "plan.attention_across_documents=false"), run_folder=tmp_path / "run", log=str)
    together = train(experiment_of(*few), run_folder=None, log=str)
    assert apart.losses[0] == pytest.approx(together.losses[0], rel=0.02)
    assert apart.losses[-1] != together.losses[-1]
    assert open_model(find_checkpoint(str(tmp_path / "run"))).document_start == apart.model.document_start == END


def test_the_token_that_opens_a_document():
    bytes_only = train_tokenizer("bytes", [], 258)
    spec = {"sources": (KingJames(),), "tokenizer": "bytes"}
    assert document_start(DataSpec(**spec), bytes_only) == 1
    assert document_start(DataSpec(**spec, begin_token=True, end_token=False), bytes_only) == 0
    with pytest.raises(ConfigurationError, match=r"needs documents with data.end_token or data.begin_token"):
        document_start(DataSpec(**spec, end_token=False), bytes_only)


def test_what_does_not_go_with_it_is_refused():
    from simulator.program.build import build_program

    model = load_model("tiny-moe", WIDTHS)
    with pytest.raises(ConfigurationError, match="is not predicted"):
        build_program(model, Plan(sequence=16, micro_batch=2, attention_across_documents=False))
    with pytest.raises(ValueError, match="later stages do not see where documents begin"):
        Plan(ranks=2, pp=2, sequence=16, micro_batch=2, global_batch=4, attention_across_documents=False)
