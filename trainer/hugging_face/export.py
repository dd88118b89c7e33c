"""Write a checkpoint as a folder that ``transformers`` loads."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from configuration.command import to_json
from configuration.errors import ConfigurationError
from simulator.specs.hugging_face import config_from_model
from trainer.checkpoints import Checkpoint, read_model_tensors
from trainer.hugging_face.names import pairs

WEIGHTS, CONFIG, TOKENIZER, TOKENIZER_CONFIG = "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"


def export_checkpoint(checkpoint: Checkpoint, folder: Path) -> list[Path]:
    """Write config, weights and tokenizer of ``checkpoint`` into ``folder``, which appears whole; returns the files.

    The layout is the family's that has the model's parts: OLMoE, Mixtral, Qwen3-MoE, or Llama without experts. Weights keep their type.
    Raises ConfigurationError when there is no such family, or when ``folder`` exists.
    """
    from safetensors.torch import save_file

    if folder.exists():
        raise ConfigurationError(f"--output: {folder} exists already")
    model, tokenizer = checkpoint.experiment.model, checkpoint.tokenizer()
    config = config_from_model(model)
    own = read_model_tensors(checkpoint)
    tensors = {name: tensor for pair in pairs(model, config["model_type"]) for name, tensor in pair.split(own[pair.ours]).items()}
    config["dtype"] = str(tensors["model.embed_tokens.weight"].dtype).removeprefix("torch.")
    config |= {"bos_token_id": tokenizer.begin_id, "eos_token_id": tokenizer.end_id}
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / CONFIG).write_text(to_json(config), encoding="utf-8")
        (temporary / TOKENIZER).write_text(tokenizer.to_json(), encoding="utf-8")
        about: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": tokenizer.begin, "eos_token": tokenizer.end}
        (temporary / TOKENIZER_CONFIG).write_text(to_json(about), encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [folder / name for name in (CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG)]
