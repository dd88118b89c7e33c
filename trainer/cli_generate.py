"""``generate`` on the command line: parses and prints."""

import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from configuration.command import emit, stderr


def generate(
    prompt: Annotated[str, typer.Option("--prompt", help="Text to continue.", show_default=False)],
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Checkpoint folder, run folder or name of a run; default: the newest of all runs.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens to write at most; the model's end of a document ends it earlier.")] = 200,
    temperature: Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token every time.")] = 0.8,
    top_k: Annotated[int | None, typer.Option("--top-k", help="Draw from the K likeliest tokens; default: from all.")] = None,
    top_p: Annotated[float, typer.Option("--top-p", help="Draw from the likeliest tokens whose probabilities add up to P (nucleus); 1: from all.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute all positions anew for every token: slower, the same tokens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the text as it comes.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the JSON document to this file.")] = None,
) -> None:
    """Continue a text with a trained model.

    Beyond the model's maximum positions the window slides: the last ones are computed anew for every token.

    Example: [bold]python -m trainer generate --prompt "In the beginning" --temperature 0.7 --top-p 0.9[/bold]
    """
    from trainer.checkpoints import find_checkpoint
    from trainer.generation import Sampling, check_prompt, repeated_ngram_share
    from trainer.generation import generate as generated
    from trainer.inference import open_model

    sampling = Sampling(temperature, top_k, top_p, seed)
    check_prompt(prompt)
    found = find_checkpoint(checkpoint)
    model, tokenizer = open_model(found), found.tokenizer()
    console = stderr()
    console.print(f"{found.experiment.model.name} after {found.step:,} steps, {found.folder}", soft_wrap=True, markup=False)
    if not as_json:
        _write(prompt)
    start = perf_counter()
    completion = generated(
        model,
        tokenizer,
        prompt,
        tokens=tokens,
        sampling=sampling,
        begin_token=bool(found.experiment.data.begin_token),
        use_cache=not no_cache,
        on_text=None if as_json else _write,
    )
    elapsed_s = perf_counter() - start
    if not as_json:
        _write("\n")
    count = len(completion.tokens)
    end = "the model ended the document" if completion.ended else "as many as asked for"
    console.print(f"{count} tokens in {elapsed_s:.2f} s ({count / elapsed_s:,.0f} tokens/s): {end}")
    document = {
        "schema_version": 1,
        "checkpoint": str(found.folder),
        "model": found.experiment.model.name,
        "step": found.step,
        "prompt": prompt,
        "text": completion.text,
        "tokens": list(completion.tokens),
        "ended": completion.ended,
        "repeated_4gram_share": repeated_ngram_share(completion.tokens),
        "sampling": {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed},
        "cache": not no_cache,
    }
    emit(document, as_json=as_json, output=output, show=lambda _: None)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
