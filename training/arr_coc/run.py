"""One run, from a detection set to weights: the detector, then the heads on it.

A run that was killed goes on where its last checkpoint was, with the same result.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from safetensors.torch import load_file, save
from torch import nn

from crossfade.runtimes.core.errors import FailedPrecondition, ResourceExhausted
from crossfade.training.arr_coc import train_backbone, train_heads
from crossfade.training.arr_coc.backbone import DetectorBackbone, freeze
from crossfade.training.arr_coc.config import ArrCocConfig
from crossfade.training.arr_coc.data import Source, digest, open_set
from crossfade.training.arr_coc.model import QueryHeads
from crossfade.training.arr_coc.pictures import Pictures
from crossfade.training.arr_coc.queries import Language
from crossfade.training.arr_coc.stage import Stage
from crossfade.training.detection.records import DetectionSet

_BACKBONE: Final = "backbone.safetensors"
_HEADS: Final = "heads.safetensors"
_RUN: Final = "run.json"
_Module = TypeVar("_Module", bound=nn.Module)


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What a run made, and what it was made of; ``data_sha256`` is ``digest`` of the data."""

    data: DetectionSet
    language: Language
    config: ArrCocConfig
    backbone: DetectorBackbone
    heads: QueryHeads
    data_sha256: str
    seconds: dict[str, float]


def language_of(data: DetectionSet, config: ArrCocConfig) -> Language:
    """Returns what can be asked of a set; raises ``InvalidArgument`` as ``Language.make``."""
    return Language.make(data.labels, config.words, config.any_words, config.held_out)


def train(source: Source, config: ArrCocConfig, folder: Path) -> Trained:
    """Trains in ``folder``, or takes from there what is finished.

    Raises:
        FailedPrecondition: the folder is of a run with another configuration or other data.
        InvalidArgument, NotFound: the data cannot be used.
        NotFinite, ResourceExhausted: the loss is no number; the disk is full.
    """
    data = open_set(source)
    language = language_of(data, config)
    torch.set_num_threads(1)  # two were four to six times as slow as one on a busy machine
    training = Pictures.load(data.of("training"), data.labels)
    validation = Pictures.load(data.of("validation"), data.labels)
    sha256 = digest(data)
    seconds = _begin(folder, {"config": config.model_dump(mode="json"), "data": sha256})

    def made(name: str, empty: _Module, train_it: Callable[[Stage], _Module]) -> _Module:
        file = folder / name
        if not file.exists():
            started, cpu = time.monotonic(), time.process_time()
            stage = Stage(folder / file.stem, file.stem)
            try:
                trained = train_it(stage)
            finally:
                stage.close()
            save_weights(trained, file)
            seconds[file.stem] = round(time.monotonic() - started, 1)
            seconds[f"{file.stem}_cpu"] = round(time.process_time() - cpu, 1)
            _write(folder / _RUN, json.loads((folder / _RUN).read_text()) | {"seconds": seconds})
        empty.load_state_dict(load_file(file))
        return empty.eval()

    backbone = freeze(
        made(
            _BACKBONE,
            DetectorBackbone(len(data.labels)),
            lambda stage: train_backbone.train(
                training, validation, config.backbone, config.seed, stage
            ),
        )
    )
    heads = made(
        _HEADS,
        train_heads.make_heads(language, config.heads),
        lambda stage: train_heads.train(
            backbone, training, validation, language, config.heads, seed=config.seed, stage=stage
        ),
    )
    return Trained(data, language, config, backbone, heads, sha256, seconds)


def _begin(folder: Path, identity: dict[str, Any]) -> dict[str, float]:
    """Writes down what the run is of, or checks it; returns the seconds that it has taken."""
    file = folder / _RUN
    if file.exists():
        known = json.loads(file.read_text("utf-8"))
        for key, value in identity.items():
            if known.get(key) != value:
                raise FailedPrecondition(
                    f"'{folder.name}' holds a run with another {key}: name another --run-dir"
                )
        return dict(known.get("seconds", {}))
    folder.mkdir(parents=True, exist_ok=True)
    _write(file, identity)
    return {}


def _write(file: Path, values: dict[str, Any]) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(values, indent=1), "utf-8")
    beside.replace(file)


def save_weights(module: nn.Module, file: Path) -> None:
    """Writes weights, as a whole or not at all.

    Raises:
        ResourceExhausted: the disk is full; the checkpoints stay.
    """
    beside = file.with_suffix(".new")
    try:
        beside.write_bytes(save({k: v.contiguous() for k, v in module.state_dict().items()}))
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceExhausted(
                f"the disk is full: {file.name} was not written; the same command goes on from"
                " the last checkpoint"
            ) from error
        raise
