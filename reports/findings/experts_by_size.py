"""What more experts change of the loss, by size and tokens: ``python -m reports.findings.experts_by_size RUNS.csv FOLDER``.

Prints the losses and writes ``experts_by_size.png`` into FOLDER: one panel a number of experts, one line a size (equal depth and embeddings), the loss over
that of the dense model of the same tokens.
"""

import statistics
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from configuration.files import write_atomically
from reports.drawing import BLACK, SERIES, counts, picture
from simulator.records.run_table import RunRow, read_rows
from simulator.units import show_count

Losses = dict[tuple[float, int], dict[float, float]]
"""{(parameters of the dense model without embeddings, experts): {tokens: loss, the mean over seeds}}."""


def losses(rows: list[RunRow]) -> Losses:
    """Of runs of which every size has a dense model."""
    dense = {(row.layers, row.embedding_parameters): row.active_parameters - float(row.embedding_parameters or 0) for row in rows if row.experts == 1}
    found: dict[tuple[float, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[dense[row.layers, row.embedding_parameters], row.experts][row.tokens].append(row.validation_loss_nats_per_token)
    return {key: {tokens: statistics.fmean(each) for tokens, each in sorted(by_tokens.items())} for key, by_tokens in sorted(found.items())}


def draw(figure: Figure, found: Losses, chosen: dict[int, int]) -> None:
    """Loss over that of the dense model (%), against tokens; ``chosen``: experts of a token, by their number."""
    levels = sorted({experts for _, experts in found if experts > 1})
    sizes = sorted({size for size, experts in found if experts > 1})
    for axes, experts in zip(figure.subplots(1, len(levels), sharey=True, squeeze=False)[0], levels, strict=True):
        for size, (colour, marker, line) in zip(sizes, SERIES, strict=False):
            common = {tokens: loss / found[size, 1][tokens] for tokens, loss in found.get((size, experts), {}).items() if tokens in found[size, 1]}
            change = [100 * (ratio - 1) for ratio in common.values()]
            axes.plot(list(common), change, color=colour, marker=marker, linestyle=line, label=f"{show_count(size)} parameters")
        axes.axhline(0, color=BLACK, linewidth=0.8)
        axes.set_xscale("log")
        counts(axes.xaxis)
        axes.set_xlabel("tokens (count)")
        axes.set_title(f"{experts} experts, {chosen[experts]} for each token")
    figure.axes[0].set_ylabel("loss against the dense model (%)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


def main(path: Path, folder: Path) -> None:
    """Print and draw."""
    rows = read_rows(path)
    found = losses(rows)
    for (size, experts), by_tokens in found.items():
        print(f"{show_count(size)} parameters, {experts} experts:", ", ".join(f"{show_count(tokens)} {loss:.3f}" for tokens, loss in by_tokens.items()))
    caption = "Loss of more experts against the dense model of equal active parameters and tokens."
    drawing = partial(draw, found=found, chosen={row.experts: row.top_k for row in rows})
    write_atomically(folder / "experts_by_size.png", picture("experts_by_size", caption, drawing, 4.6).png)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
