"""The report's pictures: precision against recall, tokens, and what patches get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from crossfade.runtimes.extras import require
from crossfade.training.arr_coc.allocator import FULL
from crossfade.training.arr_coc.baselines import AGNOSTIC, ARR_COC, LABEL, ORACLE, RULE
from crossfade.training.arr_coc.budgets import tokens_of
from crossfade.training.arr_coc.compare import groups
from crossfade.training.arr_coc.evaluate import score
from crossfade.training.arr_coc.geometry import GRID_HEIGHT, GRID_WIDTH, PATCHES
from crossfade.training.arr_coc.metrics import Ranking
from crossfade.training.arr_coc.run import Trained

_METHODS: Final[Mapping[str, str]] = {
    AGNOSTIC: "detector, query-agnostic",
    LABEL: "detector, label-filtered",
    RULE: "label and hand rule",
    ARR_COC: "ARR-COC",
    ORACLE: "oracle",
}
_TITLES: Final = {"class": "class", "seen": "class and place", "heldout": "held-out pairs"}


def write(
    trained: Trained, runs: Sequence[tuple[str, Trained, Mapping[str, Any]]], folder: Path
) -> None:
    """Writes ``arr-coc-*.png``; each is below 300 kB.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "training", "plots")
    matplotlib.use("agg")
    plt = require("matplotlib.pyplot", "training", "plots")
    folder.mkdir(parents=True, exist_ok=True)
    pictures, _, test = score(trained, "test")
    found = groups(trained.language, test.truth)

    figure, axes = plt.subplots(1, len(found), figsize=(9, 3), sharey=True)
    at = np.linspace(0.02, 1, 50)
    for axis, (group, numbers) in zip(np.atleast_1d(axes), found.items(), strict=True):
        for method, title in list(_METHODS.items())[:-1]:
            ranked = [Ranking.of(test.scores[method][:, q], test.truth[:, q]) for q in numbers]
            axis.plot(at, [np.mean([r.precision_at(x) for r in ranked]) for x in at], label=title)
        axis.set(title=_TITLES[group], xlabel="recall", xlim=(0, 1), ylim=(0, 1))
        axis.axvline(0.8, color="0.8", zorder=0)
    np.atleast_1d(axes)[0].set_ylabel("precision, mean over queries")
    np.atleast_1d(axes)[0].legend(fontsize=6)
    _save(plt, figure, folder / "arr-coc-precision.png")

    figure, axes = plt.subplots(1, len(found), figsize=(9, 2.6), sharey=True, layout="constrained")
    for axis, group in zip(np.atleast_1d(axes), found, strict=True):
        for place, (method, title) in enumerate(_METHODS.items()):
            values = [evaluation["coverage"]["50%"][group][method] for *_, evaluation in runs]
            low, high = min(values), max(values)
            middle = float(np.mean(values))
            axis.bar(place, middle, yerr=[[middle - low], [high - middle]], label=title)
        axis.set(title=_TITLES[group], xticks=[], ylim=(0, 1))
    np.atleast_1d(axes)[0].set_ylabel(f"relevant patches with {FULL} tokens")
    figure.legend(
        *np.atleast_1d(axes)[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        fontsize=7,
    )
    _save(plt, figure, folder / "arr-coc-coverage.png")

    # Another class in each column: the last, the first, and one between.
    chosen = zip(found.values(), (-1, 0, 1), strict=False)
    asked = [numbers[place % len(numbers)] for numbers, place in chosen]
    relevance = 1 / (1 + np.exp(-test.logits))
    tokens = tokens_of(relevance, FULL * PATCHES // 2)
    answered = np.any(test.truth[:, asked], axis=2)
    rows = np.flatnonzero(np.all(answered, axis=1))[:3]
    figure, axes = plt.subplots(
        len(rows), len(asked) + 1, figsize=(9, 2 * len(rows)), squeeze=False
    )
    for line, row in zip(axes, rows, strict=True):
        picture = Image.fromarray(pictures.pixels[row])
        line[0].imshow(picture)
        for axis, number in zip(line[1:], asked, strict=True):
            grid = tokens[row, number].reshape(GRID_HEIGHT, GRID_WIDTH)
            size = (0, GRID_WIDTH, GRID_HEIGHT, 0)
            axis.imshow(picture.convert("L"), cmap="gray", extent=size)
            axis.imshow(grid, cmap="magma", alpha=0.6, extent=size, vmin=64, vmax=400)
            truth = test.truth[row, number].reshape(GRID_HEIGHT, GRID_WIDTH)
            y, x = np.nonzero(truth)
            axis.scatter(x + 0.5, y + 0.5, s=2, c="cyan")
            axis.set_title(
                trained.language.phrases(trained.language.queries[number])[0], fontsize=8
            )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    _save(plt, figure, folder / "arr-coc-tokens.png")


def _save(plt: Any, figure: Any, file: Path) -> None:
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    figure.savefig(file, dpi=90)
    plt.close(figure)
    with Image.open(file) as image:  # a palette halves what a photograph takes
        image.convert("RGB").quantize(256).save(file, optimize=True)
