"""Which parts of ARR-COC's relevance are shown to help? Heads at full length, with and without.

    make bench-arrcoc-ablation DATA=BCCD/

Each seed's detector is that of the benchmark's run (``--runs``; trained where it is not there). On
it the heads are trained once for each variant, in a folder of its own, so that the same command
goes on where it was stopped. Only the validation split is looked at. Intervals (95 %) are of a
bootstrap over pictures and seeds, the same draws for all variants: with three seeds a lower end
above zero is one that holds for the worst of them. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from crossfade.benchmarks.progress import progress
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.training.arr_coc import command, run
from crossfade.training.arr_coc.config import ArrCocConfig
from crossfade.training.arr_coc.data import Source
from crossfade.training.arr_coc.evaluate import score
from crossfade.training.arr_coc.metrics import Ranking
from crossfade.training.core import run_folder

_OFF: Final = {"information": False, "salience": False, "tension": False, "centres": True}
DEFAULT: Final = "default"
# Information and salience reach the relevance through the balancer alone.
VARIANTS: Final[Mapping[str, Mapping[str, bool]]] = {
    DEFAULT: _OFF,
    "balancer alone": _OFF | {"tension": True},
    "information": _OFF | {"information": True, "tension": True},
    "salience": _OFF | {"salience": True, "tension": True},
    "information and salience": _OFF | {"information": True, "salience": True, "tension": True},
    "centres": _OFF | {"centres": False},
}
WITHOUT: Final = frozenset({"centres"})  # variants that lack the part which the default has
GROUPS: Final = ("trained", "held_out")
_DETECTOR: Final = "backbone.safetensors"


def precisions(
    logits: np.ndarray, truth: np.ndarray, groups: Sequence[Sequence[int]], drawn: np.ndarray
) -> np.ndarray:
    """Returns mean average precisions, FP64 ``[len(groups), len(drawn)]``.

    Args:
        logits: ``[n, queries, N]``.
        truth: BOOL of that shape.
        groups: numbers of queries, of which at least one is relevant somewhere.
        drawn: how often each picture counts, ``[draws, n]``.
    """
    out = np.zeros((len(groups), len(drawn)))
    for row, q in ((row, q) for row, numbers in enumerate(groups) for q in numbers):
        ranking = Ranking.of(logits[:, q], truth[:, q])
        for draw, weights in enumerate(drawn):
            recall, precision = ranking.curve(np.repeat(weights, truth.shape[-1]))
            area = np.sum(np.diff(recall, prepend=0.0) * precision)
            out[row, draw] += area / len(groups[row])
    return out


def effect(with_part: np.ndarray, without: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Says what a part adds.

    Args:
        with_part: FP64 ``[seeds, 1 + draws]``; the first column is of the pictures as they are.
        without: the same, of the same draws.
        seed: of the draws of seeds.
    """
    gaps = with_part - without
    rows = np.random.default_rng(seed).integers(len(gaps), size=(gaps.shape[1] - 1, len(gaps)))
    drawn = np.take_along_axis(gaps[:, 1:], rows.T, axis=0).mean(axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    gain = {"gain": float(gaps[:, 0].mean()), "lower": float(low), "upper": float(high)}
    return gain | {"by_seed": gaps[:, 0].tolist()}


def verdict(effects: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns "helps" only if one group of queries gains beyond doubt and none loses so."""
    gains = any(found["lower"] > 0 for found in effects.values())
    losses = any(found["upper"] < 0 for found in effects.values())
    if gains and losses:
        return "helps some, harms others"
    return "helps" if gains else "harms" if losses else "not shown to help"


def measured(
    source: Source, config: ArrCocConfig, folder: Path, detector: Path | None, resamples: int
) -> np.ndarray:
    """Trains a variant, or takes it from its folder; returns ``precisions`` of ``GROUPS``."""
    with run_folder.held(folder):
        if detector is not None and not (folder / _DETECTOR).exists():
            shutil.copyfile(detector, folder / f"{_DETECTOR}.new")
            (folder / f"{_DETECTOR}.new").replace(folder / _DETECTOR)
        trained = run.train(source, config, folder)
    _, _, found = score(trained, "validation")
    queries = list(enumerate(trained.language.queries))
    held_out = trained.language.held_out
    groups = [
        [n for n, query in queries if found.truth[:, n].any() and (query in held_out) is wanted]
        for wanted in (False, True)
    ]
    n = len(found.truth)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)
    return precisions(found.logits, found.truth, groups, np.concatenate([np.ones((1, n)), drawn]))


def _all(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Returns ``[groups, seeds, 1 + resamples]`` by variant."""
    base = ArrCocConfig.load(command.config_file(options.config), options.set)
    source, seeds = Source(options.data), range(options.seeds)
    found: dict[tuple[str, int], np.ndarray] = {}
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that follow
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for names in ([DEFAULT], [name for name in VARIANTS if name != DEFAULT]):
            waiting = {}
            for name, seed in itertools.product(names, seeds):
                heads = base.heads.model_copy(update=VARIANTS[name])
                config = base.model_copy(update={"seed": seed, "heads": heads})
                whole = options.runs / f"seed-{seed}"
                place = options.runs / "ablation" / f"seed-{seed}" / name.replace(" ", "-")
                folder, made = (whole, None) if name == DEFAULT else (place, whole / _DETECTOR)
                waiting[name, seed] = pool.submit(
                    measured, source, config, folder, made, options.resamples
                )
            for (name, seed), future in waiting.items():
                found[name, seed] = future.result()
                progress(f"{name}, seed {seed}: {found[name, seed][:, 0].round(4).tolist()}")
    return {name: np.stack([found[name, s] for s in seeds], axis=1) for name in VARIANTS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--data", type=Path, required=True, help="the folder of BCCD, or another detection set")
    option("--config", default="bccd", help="a shipped configuration or a file (%(default)s)")
    option("--set", action="append", default=[], metavar="KEY=VALUE", help="changes it")
    option("--runs", type=Path, default=Path(".bench/arr-coc"), help="(%(default)s)")
    option("--seeds", type=int, default=3, help="(%(default)s)")
    option("--jobs", type=int, default=1, help="processes of one thread (%(default)s)")
    option("--resamples", type=int, default=1000, help="of pictures and seeds (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        found = _all(options)
    except CrossfadeError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    parts: dict[str, Any] = {}
    lines = ["| part | trained queries | held-out queries | |", "|---|---|---|---|"]
    for name in (name for name in VARIANTS if name != DEFAULT):
        pair = (found[DEFAULT], found[name]) if name in WITHOUT else (found[name], found[DEFAULT])
        effects = {group: effect(pair[0][g], pair[1][g]) for g, group in enumerate(GROUPS)}
        shown = (
            f"{e['gain']:+.4f} [{e['lower']:+.4f}, {e['upper']:+.4f}]" for e in effects.values()
        )
        lines.append(f"| {' | '.join((name, *shown, verdict(effects)))} |")
        parts[name] = effects | {"verdict": verdict(effects)}
    maps = {
        n: dict(zip(GROUPS, v[:, :, 0].mean(axis=1).tolist(), strict=True))
        for n, v in found.items()
    }
    result = {"seeds": options.seeds, "resamples": options.resamples, "map": maps, "parts": parts}
    sys.stdout.write("\n".join(lines) + f"\n{json.dumps(result)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
