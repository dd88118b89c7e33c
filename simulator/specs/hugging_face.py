"""Translate a Hugging Face ``config.json`` of a supported family into the fields of a ModelSpec, and back."""

from collections.abc import Callable, Mapping
from typing import Any

from configuration.errors import ConfigurationError
from simulator.specs.model import DenseFeedForward, ModelSpec, MoeFeedForward

Config = Mapping[str, Any]


def model_data_from_config(config: Config, source: str) -> dict[str, Any]:
    """Return the plain fields of a ModelSpec for a configuration of Mixtral, OLMoE, Qwen3-MoE, DeepSeekMoE, dots.llm1 or Llama.

    Raises ConfigurationError for other families, and for features of these that the model here does not have.
    """
    family = str(config.get("model_type", ""))
    if family not in _FEED_FORWARDS:
        raise ConfigurationError(f"{source}: model_type {family!r} is not supported (legal: {', '.join(sorted(_FEED_FORWARDS))})")
    try:
        _refuse_unsupported(config, family, source)
        heads = int(config["num_attention_heads"])
        width = int(config["hidden_size"])
        mixer = {
            "kind": "grouped_query",
            "heads": heads,
            "kv_heads": int(config.get("num_key_value_heads") or heads),
            "head_width": int(config.get("head_dim") or width // heads),
            "qk_norm": {"olmoe": "width", "qwen3_moe": "head", "dots1": "head"}.get(family, "none"),
        }
        positions = int(config["max_position_embeddings"])
        theta = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta", 10000.0)
        return {
            "name": str(config.get("_name_or_path") or family),
            "source": source,
            "width": width,
            "vocabulary": int(config["vocab_size"]),
            "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
            "norm_epsilon": float(config["rms_norm_eps"]),
            "rope_theta": float(theta),
            "maximum_positions": positions,
            "load_balancing_loss": float(config.get("router_aux_loss_coef", config.get("aux_loss_alpha", 0.0))),
            "router_z_loss": 0.0,
            "blocks": _blocks(config, mixer, _FEED_FORWARDS[family](config)),
            "training_defaults": {"sequence": min(positions, 4096), "micro_batch": 1},
        }
    except KeyError as error:
        raise ConfigurationError(f"{source}: field {error.args[0]!r} is missing from this {family} configuration") from None
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{source}: a field of this {family} configuration is no number: {error}") from None


def _refuse_unsupported(config: Config, family: str, source: str) -> None:
    unsupported = {
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        "clip_qkv": config.get("clip_qkv") is not None,
        "mlp_only_layers": bool(config.get("mlp_only_layers")),
        "decoder_sparse_step": family == "qwen3_moe" and config.get("decoder_sparse_step", 1) != 1,
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "sliding_window": family == "mixtral" and config.get("sliding_window") is not None,
        "layer_types": any(kind != "full_attention" for kind in config.get("layer_types") or ()),
        "n_group": int(config.get("n_group") or 1) != 1,
        "moe_layer_freq": int(config.get("moe_layer_freq") or 1) != 1,
    }
    for field, present in unsupported.items():
        if present:
            raise ConfigurationError(f"{source}: {field} = {config.get(field)!r} is not supported for {family}")


def _blocks(config: Config, mixer: dict[str, Any], feed_forward: dict[str, Any]) -> list[dict[str, Any]]:
    """All layers alike, but for the first dense ones of a mixture that has such."""
    layers, dense = int(config["num_hidden_layers"]), int(config.get("first_k_dense_replace") or 0)
    groups = [(dense, _llama(config)), (layers - dense, feed_forward)] if dense else [(layers, feed_forward)]
    return [{"count": count, "mixer": mixer, "feed_forward": kind} for count, kind in groups if count > 0]


def _mixtral(config: Config) -> dict[str, Any]:
    return _moe(config, experts=config["num_local_experts"], expert_width=config["intermediate_size"], normalise=True)


def _olmoe(config: Config) -> dict[str, Any]:
    return _moe(config, experts=config["num_experts"], expert_width=config["intermediate_size"], normalise=bool(config.get("norm_topk_prob", False)))


def _qwen3_moe(config: Config) -> dict[str, Any]:
    experts = config["num_experts"] if "num_experts" in config else config["num_local_experts"]  # the name changed in transformers 5
    return _moe(config, experts=experts, expert_width=config["moe_intermediate_size"], normalise=bool(config.get("norm_topk_prob", False)))


def _deepseek(config: Config) -> dict[str, Any]:
    """DeepSeekMoE (arXiv 2401.06066): a softmax router and shared experts."""
    expert_width = int(config["moe_intermediate_size"])
    fields = _moe(config, experts=config["n_routed_experts"], expert_width=expert_width, normalise=bool(config.get("norm_topk_prob", False)))
    return fields | {
        "weight_scale": float(config.get("routed_scaling_factor") or 1.0),
        "shared_width": expert_width * int(config.get("n_shared_experts") or 0),
    }


def _dots1(config: Config) -> dict[str, Any]:
    """dots.llm1: the router of DeepSeek-V3 (arXiv 2412.19437) without groups."""
    return _deepseek(config) | {"router": "sigmoid", "selection_bias": True}


def _moe(config: Config, *, experts: Any, expert_width: Any, normalise: bool) -> dict[str, Any]:
    return {
        "kind": "moe",
        "experts": int(experts),
        "top_k": int(config["num_experts_per_tok"]),
        "expert_width": int(expert_width),
        "normalise_weights": normalise,
    }


def _llama(config: Config) -> dict[str, Any]:
    return {"kind": "dense", "hidden_width": int(config["intermediate_size"])}


_FEED_FORWARDS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "mixtral": _mixtral,
    "olmoe": _olmoe,
    "qwen3_moe": _qwen3_moe,
    "deepseek": _deepseek,
    "dots1": _dots1,
    "llama": _llama,
}


def config_from_model(model: ModelSpec) -> dict[str, Any]:
    """The configuration of the family that has the model's parts; reading it again gives an equal model.

    Raises ConfigurationError naming the first field that the family cannot express. The coefficient of the z-loss has no place in any of them.
    """
    group = model.blocks[0]
    mixer, feed_forward = group.mixer, group.feed_forward
    family = "llama" if isinstance(feed_forward, DenseFeedForward) else {"none": "mixtral", "width": "olmoe", "head": "qwen3_moe"}[mixer.qk_norm]
    config = {
        "architectures": [_ARCHITECTURES[family]],
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": model.width,
        "num_hidden_layers": model.layers,
        "num_attention_heads": mixer.heads,
        "num_key_value_heads": mixer.kv_heads,
        "head_dim": mixer.head_width,
        "vocab_size": model.vocabulary,
        "tie_word_embeddings": model.tied_embeddings,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": model.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "max_position_embeddings": model.maximum_positions,
        "intermediate_size": feed_forward.hidden_width if isinstance(feed_forward, DenseFeedForward) else feed_forward.expert_width,
    }
    if isinstance(feed_forward, MoeFeedForward):
        config |= {
            "num_experts_per_tok": feed_forward.top_k,
            "router_aux_loss_coef": model.load_balancing_loss,
            "num_local_experts" if family == "mixtral" else "num_experts": feed_forward.experts,
        }
        if family != "mixtral":
            config["norm_topk_prob"] = feed_forward.normalise_weights
        if family == "qwen3_moe":
            config |= {"moe_intermediate_size": feed_forward.expert_width, "decoder_sparse_step": 1, "mlp_only_layers": []}
    if family == "mixtral":
        config["sliding_window"] = None
    _check_same(model, ModelSpec(**model_data_from_config(config, model.name)), family)
    return config


def _check_same(model: ModelSpec, read: ModelSpec, family: str) -> None:
    there = read.blocks[0].model_dump()
    for index, group in enumerate(model.blocks):
        for part in ("mixer", "feed_forward"):
            for field, value in getattr(group, part).model_dump().items():
                if there[part].get(field) != value:
                    legal = f"{there[part][field]!r}" if field in there[part] else "none"
                    raise ConfigurationError(f"model.blocks.{index}.{part}.{field} ({value!r}): the layout of {family} has no place for it (legal: {legal})")
    fields = set(ModelSpec.model_fields) - {"name", "source", "blocks", "router_z_loss", "training_defaults"}
    for name in sorted(fields - ({"load_balancing_loss"} if family == "llama" else set())):
        if getattr(model, name) != getattr(read, name):
            raise ConfigurationError(f"model.{name} ({getattr(model, name)!r}): the layout of {family} has no place for it (legal: {getattr(read, name)!r})")


_ARCHITECTURES = {"mixtral": "MixtralForCausalLM", "olmoe": "OlmoeForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM", "llama": "LlamaForCausalLM"}
