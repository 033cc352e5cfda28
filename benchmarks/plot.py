"""The plot of the actor's CPU against the number of sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from .sources import KEPT_UP, Scale


def draw(
    measured: Sequence[Scale], direct: Sequence[Scale], costs: tuple[float, float, float], path: Path
) -> None:
    """Write an SVG.

    Args:
        measured: As a run is.
        direct: With every source calling the actor itself.
        costs: What was fitted: CPU seconds a call and a report, and the part of a core without either.
        path: Where to.
    """
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks"})
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    call, report, base = costs
    for scales, name, style in ((measured, "as it is", "C0"), (direct, "without relays", "C1")):
        at = [scale.sources for scale in scales]
        last = ([scale for scale in scales if scale.kept_up > KEPT_UP] or scales)[-1]
        label = f"{name}: {100 * last.of_a_worker(call, report):.2g} % a worker"
        axes.plot(at, [100 * scale.actor for scale in scales], f"{style}o-", label=label)
        fitted = [base + call * scale.calls_made + report * scale.reports_made for scale in scales]
        axes.plot(at, [100 * value for value in fitted], f"{style}:")
    axes.plot([], [], "k:", label=f"fitted: {1e6 * call:.0f} µs a call, {1e6 * report:.1f} µs a report")
    axes.axhline(20, color="grey", linewidth=0.8)
    axes.text(1.2, 21, "20 %", color="grey")
    axes.set(xscale="log", xlabel="workers that report", ylabel="actor, % of a core", ylim=(0, 105))
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
