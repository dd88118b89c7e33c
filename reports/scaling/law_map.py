"""The fitted law as a map over parameters and tokens, with the runs and the line on which both gain alike."""

import numpy as np
from matplotlib.figure import Figure

from calibration.scaling.fit import Fit
from calibration.scaling.next_run import points_like
from calibration.scaling.verdict import rho_at
from reports.drawing import BLACK, VERMILLION, counts

CELLS = 60
MARGIN = 2.0


def draw(figure: Figure, law: Fit) -> None:
    """Contours of the loss with the experts of the largest run; runs as points; a line where an e-fold of parameters gains as much as one of tokens.

    Over that line parameters bind.
    """
    axes = figure.add_subplot()
    points = law.points
    n, d = (np.geomspace(np.exp(logs.min()) / MARGIN, np.exp(logs.max()) * MARGIN, CELLS) for logs in (points.log_n, points.log_d))
    grid_n, grid_d = np.meshgrid(n, d)
    largest = points.take([int(points.log_c.argmax())])
    at = points_like(largest, grid_n.ravel(), grid_d.ravel())
    loss = law.law.loss(law.theta, at).reshape(grid_n.shape)
    # Before anything is drawn: labels of contours cut their gaps in the axes of then.
    axes.set(xscale="log", yscale="log", xlim=(n[0], n[-1]), ylim=(d[0], d[-1]))
    contours = axes.contour(grid_n, grid_d, loss, levels=12, cmap="cividis", linewidths=1.4)
    axes.clabel(contours, fontsize=9, fmt="%.3g")
    rho = rho_at(law.law, law.theta, at).reshape(grid_n.shape)
    if rho.min() < 1 < rho.max():
        axes.contour(grid_n, grid_d, np.log(rho), levels=[0.0], colors=VERMILLION, linewidths=2, linestyles="--")
        axes.plot([], [], color=VERMILLION, linewidth=2, linestyle="--", label="parameters and tokens gain alike")
    axes.plot(np.exp(points.log_n), np.exp(points.log_d), color=BLACK, marker="o", markersize=5, linestyle="none", label="runs fitted")
    counts(axes.xaxis)
    counts(axes.yaxis)
    axes.set_xlabel("parameters N (count)")
    axes.set_ylabel("tokens D (count)")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
