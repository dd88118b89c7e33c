"""What others would run on the same shapes: the yardsticks of the training suite."""

from configuration.errors import ConfigurationError
from simulator.specs import ModelSpec, MoeFeedForward


def check_peers_can_run(spec: ModelSpec) -> None:
    """Raise ConfigurationError for what the peers have not: they are plain decoders of like layers of softmax experts, and minimise cross-entropy alone."""
    group = spec.blocks[0]
    mixer, feed_forward = group.mixer, group.feed_forward
    if not isinstance(feed_forward, MoeFeedForward):
        raise ConfigurationError(f"{spec.name}: --suite training compares models of experts")
    plain = {
        "blocks": (len(spec.blocks), 1),
        "tied_embeddings": (spec.tied_embeddings, False),
        "load_balancing_loss": (spec.load_balancing_loss, 0),
        "router_z_loss": (spec.router_z_loss, 0),
        "blocks.0.mixer": (mixer, mixer.model_copy(update={"kv_heads": mixer.heads, "head_width": spec.width // mixer.heads, "qk_norm": "none"})),
        "blocks.0.feed_forward": (
            feed_forward, MoeFeedForward(experts=feed_forward.experts, top_k=feed_forward.top_k, expert_width=feed_forward.expert_width),
        ),
    }  # fmt: skip
    for field, (value, wanted) in plain.items():
        if value != wanted:
            raise ConfigurationError(f"{spec.name}: {field} is {value}, which the other implementations of --suite training have not (legal: {wanted})")
