"""Weights from and to Hugging Face's layouts: logits equal those of ``transformers`` on the same weights."""

import json

import pytest
import torch

from configuration.errors import ConfigurationError
from simulator.specs import ModelSpec, Plan, load_model
from simulator.specs.hugging_face import config_from_model, model_data_from_config
from trainer.checkpoints import find_checkpoint, save_checkpoint
from trainer.data import prepare
from trainer.hugging_face import export_checkpoint
from trainer.hugging_face.imports import load_weights
from trainer.inference import open_model
from trainer.loop.experiment import Experiment
from trainer.model import build_model
from trainer.optimizer import build_optimizer
from trainer.specs import DataSpec, TextFiles, TrainingSpec

transformers = pytest.importorskip("transformers")

SHAPE = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 260}
SHAPE |= {"max_position_embeddings": 64, "num_experts_per_tok": 2, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 1}
FAMILIES = {
    "olmoe": ("OlmoeForCausalLM", "OlmoeConfig", {"num_experts": 4}),
    "olmoe-normalised-multi-head": ("OlmoeForCausalLM", "OlmoeConfig", {"num_experts": 4, "norm_topk_prob": True, "num_key_value_heads": 4}),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {"num_local_experts": 4}),
    "mixtral-wide-heads": ("MixtralForCausalLM", "MixtralConfig", {"num_local_experts": 4, "head_dim": 16, "rope_theta": 5e5}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8, "norm_topk_prob": True}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {}),
}
TOKENS = torch.randint(260, (2, 24), generator=torch.Generator().manual_seed(0))


def theirs(family, *, tied):
    model, config, fields = FAMILIES[family]
    torch.manual_seed(1)
    made = getattr(transformers, model)(getattr(transformers, config)(**{**SHAPE, **fields}, tie_word_embeddings=tied))
    with torch.no_grad():
        # Larger than initial weights and uneven norms, so that every part has a say.
        for parameter in made.parameters():
            parameter.copy_(parameter * 4 if parameter.dim() > 1 else parameter + 0.3 * torch.randn(parameter.shape))
    return made.eval()


def experiment_of(model, tmp_path, **plan):
    (tmp_path / "text.txt").write_text("one line after another\n" * 60)
    source = TextFiles(paths=(str(tmp_path / "text.txt"),), document="line")
    data = DataSpec(sources=(source,), tokenizer="bytes")
    return Experiment(model, Plan(sequence=16, micro_batch=2, **plan), data, TrainingSpec(device="cpu", tokens=64))


def saved(experiment, model, run_folder):
    data = prepare(experiment.data, experiment.model.vocabulary, lambda line: None)
    optimizer = build_optimizer(model, experiment.plan, learning_rate=1e-3, weight_decay=0.1)
    return save_checkpoint(run_folder, 0, model, optimizer, experiment=experiment, data_key=data.facts.key, tokenizer=data.tokenizer)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers_in_both_directions(family, tied, tmp_path):
    there = theirs(family, tied=tied)
    there.save_pretrained(tmp_path / "theirs")
    spec = load_model(str(tmp_path / "theirs" / "config.json"))
    experiment = experiment_of(spec, tmp_path, implementation={"experts": "packed"} if family == "mixtral" else {})
    ours = build_model(spec, experiment.plan, seed=3)
    load_weights(tmp_path / "theirs", ours, experiment)
    with torch.no_grad():
        expected = there(TOKENS).logits
        torch.testing.assert_close(ours.logits(TOKENS), expected, rtol=1e-4, atol=1e-4)
    checkpoint = find_checkpoint(str(saved(experiment, ours, tmp_path / "run")))
    export_checkpoint(checkpoint, tmp_path / "ours")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(back) is type(there)
    with torch.no_grad():
        assert torch.equal(back(TOKENS).logits, expected)
    for name, tensor in there.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


def test_the_exported_tokenizer_gives_the_same_ids(tmp_path):
    spec = load_model("tiny-moe", {"vocabulary": 260, "width": 32, "blocks.0.count": 1})
    experiment = experiment_of(spec, tmp_path)
    checkpoint = find_checkpoint(str(saved(experiment, build_model(spec, experiment.plan, seed=0), tmp_path / "run")))
    export_checkpoint(checkpoint, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("é one line").input_ids == checkpoint.tokenizer().encode("é one line")
    assert tokenizer.eos_token_id == checkpoint.tokenizer().end_id
    with pytest.raises(ConfigurationError, match="exists already"):
        export_checkpoint(checkpoint, tmp_path / "out")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("feed_forward.normalise_weights", False, r"blocks.0.feed_forward.normalise_weights \(False\): the layout of mixtral .*legal: True"),
        ("feed_forward.router", "sigmoid", "feed_forward.router"),
        ("feed_forward.selection_bias", True, "feed_forward.selection_bias"),
        ("feed_forward.shared_width", 8, "feed_forward.shared_width"),
        ("feed_forward.capacity_factor", 1.5, "feed_forward.capacity_factor"),
    ],
)
def test_a_model_that_no_layout_has_a_place_for_is_refused(field, value, told):
    with pytest.raises(ConfigurationError, match=told):
        config_from_model(load_model("tiny-moe", {f"blocks.0.{field}": value}))


def test_layers_that_differ_are_refused():
    model = load_model("tiny-moe").model_dump()
    model["blocks"] = [model["blocks"][0], {**model["blocks"][0], "feed_forward": {"kind": "dense", "hidden_width": 8}}]
    with pytest.raises(ConfigurationError, match=r"blocks.1.feed_forward.kind \('dense'\): the layout of mixtral"):
        config_from_model(ModelSpec.model_validate(model))


@pytest.mark.parametrize("name", ["olmoe-1b-7b", "mixtral-8x7b"])
def test_published_models_survive_their_configuration(name):
    try:
        model = load_model(name)
    except ConfigurationError:
        pytest.skip(f"no preset {name}")
    again = ModelSpec(**model_data_from_config(config_from_model(model), "x"))
    assert (again.parameters, again.active_parameters, again.rope_theta) == (model.parameters, model.active_parameters, model.rope_theta)


def test_export_import_generate_and_train_on(tmp_path, trainer):
    there = theirs("olmoe", tied=False)
    spec = ModelSpec(**model_data_from_config(there.config.to_dict(), "x"))
    experiment = experiment_of(spec, tmp_path)
    saved(experiment, build_model(spec, experiment.plan, seed=5), tmp_path / "runs" / "first")
    assert trainer("export", "--checkpoint", "first", "-o", "folder")[0] == 0
    (tmp_path / "words.yaml").write_text(f"sources: [{{kind: text-files, paths: {tmp_path / 'text.txt'}, document: line}}]\n")
    settings = ["--data", "words.yaml", "--set", "plan.sequence=16", "--set", "plan.micro_batch=2", "--set", "training.tokens=64"]
    code, out, err = trainer("import", "folder", "--name", "second", *settings, "--json")
    assert code == 0, err
    first, second = (find_checkpoint(name) for name in ("first", "second"))
    assert json.loads(out)["checkpoint"] == str(second.folder)
    assert (second.step, second.experiment.data.end_token) == (0, "<|end|>")
    with torch.no_grad():
        assert torch.equal(open_model(first).logits(TOKENS), open_model(second).logits(TOKENS))
    assert trainer("generate", "--checkpoint", "second", "--prompt", "one", "--tokens", "4")[0] == 0
    code, _, err = trainer("pretrain", "--resume", "second")
    assert code == 0, err
    assert find_checkpoint("second").step == 2


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "has no safetensors file (pickled weights are not read)"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 30), "is damaged or cut off"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: _change(folder, vocab_size=300), "model.embed_tokens.weight has the shape [260, 32], the model's is [300, 32]"),
        (lambda folder: _change(folder, num_hidden_layers=3), "has no tensor model.layers.2.input_layernorm.weight"),
        (lambda folder: _change(folder, num_hidden_layers=1), "no place for 21 tensors, such as model.layers.1.input_layernorm.weight"),
        (lambda folder: _change(folder, model_type="gpt2"), "model_type 'gpt2' is not supported"),
    ],
)
def test_what_cannot_be_imported_is_one_line_and_leaves_no_run(tmp_path, trainer, spoil, told):
    spec = load_model("tiny-moe", {"vocabulary": 260, "width": 32, "blocks.0.count": 2, "blocks.0.feed_forward.experts": 4, "blocks.0.mixer.qk_norm": "width"})
    experiment = experiment_of(spec, tmp_path)
    checkpoint = find_checkpoint(str(saved(experiment, build_model(spec, experiment.plan, seed=0), tmp_path / "run")))
    export_checkpoint(checkpoint, tmp_path / "folder")
    spoil(tmp_path / "folder")
    code, out, err = trainer("import", "folder", "--name", "new", "--set", "training.device=cpu")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert told in err
    assert not (tmp_path / "runs").exists()


def _change(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
