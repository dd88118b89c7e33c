"""Sigmoid router, selection bias, scaled weights and shared experts: logits of dots.llm1 in transformers on the same weights."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from configuration.errors import ConfigurationError
from simulator.specs import load_model, load_plan
from trainer.model import MoETransformer, build_model

CONFIG = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 100,
    "intermediate_size": 48, "moe_intermediate_size": 16, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3,
    "first_k_dense_replace": 1, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "max_position_embeddings": 64,
}  # fmt: skip
RENAMED = {
    "self_attn.q_proj": "attention.query", "self_attn.k_proj": "attention.key", "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.output", "self_attn.q_norm": "attention.query_norm", "self_attn.k_norm": "attention.key_norm",
    "input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm", "mlp.gate.weight": "feed_forward.router.weight",
    "mlp.gate.e_score_correction_bias": "feed_forward.router.selection_bias", "mlp.shared_experts.gate_proj": "feed_forward.shared.gate",
    "mlp.shared_experts.up_proj": "feed_forward.shared.up", "mlp.shared_experts.down_proj": "feed_forward.shared.down",
    "mlp.gate_proj": "feed_forward.gate", "mlp.up_proj": "feed_forward.up", "mlp.down_proj": "feed_forward.down",
    "model.layers": "blocks", "model.embed_tokens.weight": "embedding", "model.norm": "final_norm", "lm_head": "head",
}  # fmt: skip


def ours(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under our names; theirs are (experts, out, in), gate and up in one."""
    state = {}
    for name, tensor in theirs.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        if name.endswith("mlp.experts.gate_up_proj"):
            gate, up = tensor.transpose(1, 2).chunk(2, -1)
            state |= {name.replace("mlp.experts.gate_up_proj", f"feed_forward.experts.{part}"): half for part, half in (("gate", gate), ("up", up))}
        elif name.endswith("mlp.experts.down_proj"):
            state[name.replace("mlp.experts.down_proj", "feed_forward.experts.down")] = tensor.transpose(1, 2)
        else:
            state[name] = tensor
    return state


@pytest.fixture
def both(tmp_path: Path) -> tuple[nn.Module, MoETransformer]:
    transformers = pytest.importorskip("transformers", reason="logits are compared with transformers")
    config = transformers.Dots1Config(**CONFIG)
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if name.endswith("e_score_correction_bias"):
                tensor.normal_(0.0, 0.3)
            elif tensor.dim() > 1:
                tensor.mul_(5.0)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    spec = load_model(str(tmp_path / "config.json"))
    model = build_model(spec, load_plan(spec, None, {"sequence": 32})[0], seed=0)
    model.load_state_dict(ours(theirs.state_dict()), strict=True)
    return theirs, model


def test_logits_are_those_of_transformers(both: tuple[nn.Module, MoETransformer]) -> None:
    theirs, model = both
    tokens = torch.randint(100, (2, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = theirs(tokens).logits, model.logits(tokens)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def test_parameters_are_those_of_transformers(both: tuple[nn.Module, MoETransformer]) -> None:
    theirs, model = both
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert model.spec.parameters == sum(parameter.numel() for parameter in model.parameters()) == count
    # Of two layers with experts, 5 of 8 are idle for a token.
    assert model.spec.active_parameters == count - 2 * 5 * 3 * 32 * 16


def test_a_deepseek_moe_configuration_is_read(tmp_path: Path) -> None:
    fields = CONFIG | {"model_type": "deepseek", "rms_norm_eps": 1e-6, "aux_loss_alpha": 0.001, "norm_topk_prob": False, "routed_scaling_factor": 1.0}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    model = load_model(str(tmp_path / "config.json"))
    assert [(group.count, group.feed_forward.kind) for group in model.blocks] == [(1, "dense"), (2, "moe")]
    moe = model.blocks[1].feed_forward
    assert (moe.router, moe.selection_bias, moe.shared_width, moe.normalise_weights, moe.weight_scale) == ("softmax", False, 32, False, 1.0)
    assert model.load_balancing_loss == 0.001


def test_groups_of_experts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"model_type": "dots1", "rms_norm_eps": 1e-6, "n_group": 4, "topk_group": 2}))
    with pytest.raises(ConfigurationError, match="n_group = 4 is not supported for dots1"):
        load_model(str(tmp_path / "config.json"))
