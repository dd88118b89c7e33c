"""The loss roofline: loss against tokens per parameter at one compute, between what endless data and endless parameters would allow."""

from matplotlib.figure import Figure

from calibration.scaling.roofline import Roofline
from reports.drawing import BLACK, BLUE, ORANGE, SKY, counts

HEADROOM = 1.15


def draw(figure: Figure, found: Roofline) -> None:
    """The band is the interval of the loss; left of the balance more data would gain more (data-bound), right of it more parameters."""
    axes = figure.add_subplot()
    x = found.tokens_per_parameter
    axes.fill_between(x, found.low, found.high, color=SKY, alpha=0.35, linewidth=0, label="95 % interval")
    axes.plot(x, found.loss, color=BLACK, linewidth=2, label="loss at this compute")
    axes.plot(x, found.parameter_limit, color=ORANGE, linestyle="--", linewidth=1.8, label="with endless data: parameters bind")
    axes.plot(x, found.data_limit, color=BLUE, linestyle="-.", linewidth=1.8, label="with endless parameters: data bind")
    axes.set_xscale("log")
    axes.set_ylim(min(*found.parameter_limit, *found.data_limit) / HEADROOM, min(found.loss) * HEADROOM**2)
    if found.balanced is not None:
        axes.axvline(found.balanced, color=BLACK, linestyle=":", linewidth=1.3)
        for low, high, colour, side, words in ((x[0], found.balanced, BLUE, "left", "data-bound"), (found.balanced, x[-1], ORANGE, "right", "parameter-bound")):
            axes.axvspan(low, high, color=colour, alpha=0.06, linewidth=0)
            place = low if side == "left" else high
            axes.annotate(words, (place, 0.03), xycoords=axes.get_xaxis_transform(), ha=side, fontsize=11, color=colour)
        axes.annotate(
            f"balance: {found.balanced:.3g} tokens per parameter", (found.balanced, 0.97), xycoords=axes.get_xaxis_transform(), xytext=(6, 0),
            textcoords="offset points", va="top", fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    counts(axes.xaxis)
    axes.set_xlabel(f"tokens per parameter at {found.flops:.3g} FLOPs (ratio)")
    axes.set_ylabel("validation loss (nats per token)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
