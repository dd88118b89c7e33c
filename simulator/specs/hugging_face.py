"""Translate a Hugging Face ``config.json`` of a supported family into the fields of a ModelSpec."""

from collections.abc import Callable, Mapping
from typing import Any

from configuration.errors import ConfigurationError

Config = Mapping[str, Any]


def model_data_from_config(config: Config, source: str) -> dict[str, Any]:
    """Return the plain fields of a ModelSpec for a configuration of Mixtral, OLMoE, Qwen3-MoE or Llama.

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
            "qk_norm": {"olmoe": "width", "qwen3_moe": "head"}.get(family, "none"),
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
            "load_balancing_loss": float(config.get("router_aux_loss_coef", 0.0)),
            "router_z_loss": 0.0,
            "blocks": [{"count": int(config["num_hidden_layers"]), "mixer": mixer, "feed_forward": _FEED_FORWARDS[family](config)}],
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
    }
    for field, present in unsupported.items():
        if present:
            raise ConfigurationError(f"{source}: {field} = {config.get(field)!r} is not supported for {family}")


def _mixtral(config: Config) -> dict[str, Any]:
    return _moe(config, experts=config["num_local_experts"], expert_width=config["intermediate_size"], normalise=True)


def _olmoe(config: Config) -> dict[str, Any]:
    return _moe(config, experts=config["num_experts"], expert_width=config["intermediate_size"], normalise=bool(config.get("norm_topk_prob", False)))


def _qwen3_moe(config: Config) -> dict[str, Any]:
    experts = config["num_experts"] if "num_experts" in config else config["num_local_experts"]  # the name changed in transformers 5
    return _moe(config, experts=experts, expert_width=config["moe_intermediate_size"], normalise=bool(config.get("norm_topk_prob", False)))


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


_FEED_FORWARDS: dict[str, Callable[[Config], dict[str, Any]]] = {"mixtral": _mixtral, "olmoe": _olmoe, "qwen3_moe": _qwen3_moe, "llama": _llama}
