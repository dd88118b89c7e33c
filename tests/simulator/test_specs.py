import json
from pathlib import Path
from typing import Any

import pytest

from configuration.errors import ConfigurationError
from simulator.specs import MODELS, ModelSpec, load_model, load_plan
from simulator.specs.flops import forward_flops_per_token, model_flops_per_token

# Published totals and active parameters, in billions, as their authors round them.
PUBLISHED = {
    "mixtral-8x7b": (46.7, 12.9),  # arXiv 2401.04088
    "olmoe-1b-7b": (6.9, 1.3),  # arXiv 2409.02060
    "qwen3-30b-a3b": (30.5, 3.3),  # model card of Qwen/Qwen3-30B-A3B
    "llama-3-8b": (8.0, 8.0),  # arXiv 2407.21783
}
CLASSES = {
    "mixtral-8x7b": ("MixtralConfig", {"num_local_experts": 8, "num_experts_per_tok": 2}),
    "olmoe-1b-7b": ("OlmoeConfig", {"num_experts": 64, "num_experts_per_tok": 8}),
    "qwen3-30b-a3b": ("Qwen3MoeConfig", {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": True}),
    "llama-3-8b": ("LlamaConfig", {}),
}


def hugging_face_config(name: str) -> Any:
    transformers = pytest.importorskip("transformers", reason="counts are compared with transformers")
    model = load_model(name)
    mixer, feed_forward = model.blocks[0].mixer, model.blocks[0].feed_forward
    kind, extra = CLASSES[name]
    inner = getattr(feed_forward, "expert_width", None) or getattr(feed_forward, "hidden_width", None)
    fields = {
        "hidden_size": model.width, "vocab_size": model.vocabulary, "num_hidden_layers": model.layers,
        "num_attention_heads": mixer.heads, "num_key_value_heads": mixer.kv_heads, "head_dim": mixer.head_width,
        "intermediate_size": inner, "max_position_embeddings": model.maximum_positions, "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tied_embeddings,
    }  # fmt: skip
    return getattr(transformers, kind)(**fields | extra)


def test_tiny_moe_by_hand() -> None:
    # 4 layers of 4·128² attention, 2·128 norms, 128·8 router and 8·3·128² experts; the tied table of 2048·128; one more norm.
    layer = 4 * 128**2 + 2 * 128 + 128 * 8 + 8 * 3 * 128**2
    model = load_model("tiny-moe")
    assert model.parameters == 4 * layer + 2048 * 128 + 128
    assert model.active_parameters == model.parameters - 4 * 6 * 3 * 128**2


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_parameters_equal_those_of_transformers_on_the_meta_device(name: str) -> None:
    import torch

    config = hugging_face_config(name)
    import transformers

    with torch.device("meta"):
        peer = transformers.AutoModelForCausalLM.from_config(config)
    model = load_model(name)
    count = sum(parameter.numel() for parameter in peer.parameters())
    experts = sum(parameter.numel() for key, parameter in peer.named_parameters() if ".experts." in key)
    feed_forward = model.blocks[0].feed_forward
    share = feed_forward.top_k / feed_forward.experts if feed_forward.kind == "moe" else 1.0
    assert model.parameters == count
    assert model.active_parameters == count - experts + round(experts * share)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_agree_with_published_figures(name: str) -> None:
    model = load_model(name)
    total, active = PUBLISHED[name]
    assert model.parameters / 1e9 == pytest.approx(total, abs=0.05)
    assert model.active_parameters / 1e9 == pytest.approx(active, abs=0.06)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_hugging_face_config_gives_the_preset(name: str, tmp_path: Path) -> None:
    config = hugging_face_config(name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict(), default=str))
    read, preset = load_model(str(path)), load_model(name)
    assert read.blocks == preset.blocks
    assert (read.parameters, read.active_parameters) == (preset.parameters, preset.active_parameters)


def test_an_unsupported_family_names_the_supported(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "gpt2"}')
    with pytest.raises(ConfigurationError, match=r"model_type 'gpt2' is not supported \(legal: deepseek, dots1, llama, mixtral, olmoe, qwen3_moe\)"):
        load_model(str(path))


def test_a_feature_that_the_model_has_not_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "llama", "attention_bias": true}')
    with pytest.raises(ConfigurationError, match="attention_bias = True is not supported for llama"):
        load_model(str(path))


@pytest.mark.parametrize("name", MODELS.names())
def test_every_preset_says_where_it_comes_from(name: str) -> None:
    assert load_model(name).source


def test_default_plan_takes_the_largest_expert_degree_that_divides_both() -> None:
    plan, used = load_plan(load_model("tiny-moe"), ranks=12)
    assert plan.ep == 4
    assert "plan.ep" in {default.field for default in used}


@pytest.mark.parametrize("implementation", [{"compile": "block"}, {"launch": "graph"}])
def test_experts_stay_whole_by_default_where_layers_have_to(implementation: dict[str, str]) -> None:
    model = load_model("tiny-moe")
    plan, used = load_plan(model, None, {"precision": "bf16-mixed", "implementation": implementation}, ranks=4)
    assert (plan.ep, plan.dp) == (1, 4)
    assert "whole layers" in next(default.reason for default in used if default.field == "plan.ep")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"ep": 4, "ranks": 4}, None),
        ({"ep": 3, "ranks": 4}, r"ep \(3\) must divide ranks \(4\)"),
        ({"global_batch": 5, "micro_batch": 2}, r"global_batch \(5\) must be a multiple of micro_batch x dp \(2 x 1\)"),
        ({"tp": 3, "ranks": 4}, r"tp x pp \(3 x 1\) must divide ranks \(4\)"),
        ({"cp": 2}, r"cp \(2\): context parallelism is not supported"),
        ({"pp": 2, "ranks": 2}, r"schedule 1f1b needs pp \(2\) micro-batches or more"),
        ({"virtual_stages": 2}, r"virtual_stages \(2\): interleaved takes 2 or more"),
        ({"replicas": 2, "ranks": 4}, r"replicas \(2\) are copies of a sharded state"),
        ({"zero_stage": 3}, r"zero_stage \(3\) shards over data-parallel ranks, and there is one"),
        ({"ep": 2, "etp": 2, "ranks": 6}, r"ep x etp \(2 x 2\) must divide ranks \(6\)"),
        ({"zero_stage": 1, "ranks": 2}, r"zero_stage 1 .* is not supported \(legal: 0, 2, 3\)"),
        ({"zero_stage": 3, "ranks": 4, "pp": 2, "global_batch": 4}, r"zero_stage \(3\) is not supported with pp \(2\)"),
        ({"zero_stage": 2, "ranks": 2, "precision": "bf16-split"}, r"precision bf16-split is not supported with a zero_stage"),
        ({"zero_stage": 3, "ranks": 4, "replicas": 3}, r"replicas \(3\) must divide the 4 data-parallel ranks"),
        ({"zero_stage": 3, "ranks": 3, "ep": 1}, r"zero_stage \(3\): 3 shards must divide model.width \(128\)"),
        ({"etp": 2, "ranks": 2, "ep": 1, "implementation.experts": "packed"}, r"implementation.experts packed has gate and up in one matrix"),
        ({"ranks": 2, "ep": 2, "implementation.compile": "block"}, r"implementation.compile block takes a block as one graph, which ep \(2\) cuts"),
        ({"implementation.compile": "block", "implementation.experts": "loop"}, r"implementation.compile block takes a block as one graph, which experts loop"),
        ({"pp": 2, "ranks": 2, "global_batch": 4, "attention_across_documents": False}, r"attention_across_documents false is not supported with pp"),
        ({"schedule": "interleaved", "virtual_stages": 2}, r"virtual_stages \(2\) need a pipeline: pp 2 or more"),
        ({"pp": 2, "ranks": 2, "schedule": "interleaved", "virtual_stages": 2, "micro_batch": 1, "global_batch": 3}, r"interleaved needs a multiple of pp"),
        ({"pp": 8, "ranks": 8, "ep": 1, "micro_batch": 1, "global_batch": 8}, r"plan.pp x virtual_stages \(8 x 1\) exceeds the 4 layers"),
        ({"tp": 8, "ranks": 8, "ep": 1}, r"plan.tp \(8\) must divide model.blocks.0.mixer.heads"),
        ({"tp": 2, "ranks": 2, "ep": 1, "micro_batch": 1, "sequence": 3}, r"tp \(2\) must divide micro_batch x sequence \(3\)"),
        ({"recomputation": "some"}, r"recomputation.*must be none, full, or a list of attention, experts, feed_forward"),
        ({"sequence": 4096}, r"plan.sequence \(4096\) exceeds maximum_positions of tiny-moe \(2048\)"),
        ({"microbatch": 2}, r"microbatch: unknown key; did you mean 'micro_batch'\?"),
        (
            {"implementation.experts": "batched"},
            r"experts batched gives .* model.blocks.0.feed_forward has no capacity_factor \(legal: grouped, packed, loop\)",
        ),
        ({"implementation.experts": "fast"}, r"implementation.experts: Input should be 'grouped', 'packed', 'loop' or 'batched', got 'fast'"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_in_one_line(overrides: dict[str, Any], message: str | None) -> None:
    model = load_model("tiny-moe")
    if message is None:
        load_plan(model, None, overrides)
        return
    with pytest.raises(ConfigurationError, match=message):
        load_plan(model, None, overrides)


def test_seven_experts_over_four_ranks_name_the_legal_degrees() -> None:
    model = load_model("tiny-moe", {"blocks.0.feed_forward.experts": 7})
    with pytest.raises(ConfigurationError, match=r"plan.ep \(4\) must divide the 7 experts of tiny-moe \(legal on 4 ranks: 1\)"):
        load_plan(model, None, {"ranks": 4, "ep": 4})


def test_a_dense_model_takes_no_expert_parallelism() -> None:
    with pytest.raises(ConfigurationError, match="has no experts to spread"):
        load_plan(load_model("llama-3-8b"), None, {"ranks": 2, "ep": 2})


def test_model_flops_by_hand() -> None:
    # Per layer: q, k, v, o 4·128²; router 128·8; two experts of 3·128²; scores 2·4·32·128 FLOPs (half of 4·H·C·S). Head 128·2048.
    model = load_model("tiny-moe")
    layer = 2 * (4 * 128**2 + 128 * 8 + 2 * 3 * 128**2) + 2 * 4 * 32 * 128
    assert forward_flops_per_token(model, 128) == 4 * layer + 2 * 128 * 2048
    assert model_flops_per_token(model, 128) == 3 * forward_flops_per_token(model, 128)


def test_top_k_beyond_the_experts_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"top_k \(9\) must not exceed experts \(8\)"):
        load_model("tiny-moe", {"blocks.0.feed_forward.top_k": 9})


def test_specifications_have_a_schema_for_editors() -> None:
    schema = ModelSpec.model_json_schema()
    assert schema["additionalProperties"] is False
    assert "blocks" in schema["properties"]
