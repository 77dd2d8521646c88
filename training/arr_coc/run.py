"""One run, from a detection set to weights: the detector, then the heads on it.

A run that was killed goes on where its last checkpoint was, with the same result.
"""

from __future__ import annotations

import copy
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
from crossfade.serving.repository.lineage import Origin, digest_folder
from crossfade.training.arr_coc import train_backbone, train_heads
from crossfade.training.arr_coc.backbone import Detector, DetectorBackbone, freeze
from crossfade.training.arr_coc.config import ArrCocConfig
from crossfade.training.arr_coc.data import Source, digest, open_set
from crossfade.training.arr_coc.export_detector import ExportDetector
from crossfade.training.arr_coc.model import QueryHeads
from crossfade.training.arr_coc.pictures import Pictures
from crossfade.training.arr_coc.queries import Language
from crossfade.training.arr_coc.stage import Stage
from crossfade.training.backbones.opening import open_backbone
from crossfade.training.detection.records import DetectionSet

_BACKBONE: Final = "backbone.safetensors"
_HEADS: Final = "heads.safetensors"
_RUN: Final = "run.json"
_Module = TypeVar("_Module", bound=nn.Module)


@dataclasses.dataclass(frozen=True, slots=True)
class Export:
    """What a detector begins with; ``signature`` is of a SavedModel, "" is its default."""

    path: Path
    signature: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What a run made, and what it was made of.

    Attributes:
        data_sha256: ``digest`` of the data.
        export: digest of the export that the detector began with, if it did.
        seconds: of each stage; nothing of a stage that the folder held.
    """

    data: DetectionSet
    language: Language
    config: ArrCocConfig
    backbone: Detector
    heads: QueryHeads
    data_sha256: str
    export: Origin | None
    seconds: dict[str, float]


class Run:
    """A run's folder, and what was read for it. Not thread-safe.

    Raises:
        FailedPrecondition: the folder is of a run with another configuration, data or export.
        InvalidArgument, NotFound: the data or the export cannot be used.
    """

    def __init__(
        self, source: Source, config: ArrCocConfig, folder: Path, export: Export | None = None
    ) -> None:
        self.data = open_set(source)
        self.config = config
        self.language = language_of(self.data, config)
        torch.set_num_threads(1)  # two were four to six times as slow as one on a busy machine
        self.training = Pictures.load(self.data.of("training"), self.data.labels)
        self.validation = Pictures.load(self.data.of("validation"), self.data.labels)
        self.data_sha256 = digest(self.data)
        self.export: Origin | None = None
        self._opened: Callable[[], Detector] = lambda: DetectorBackbone(len(self.data.labels))
        if export is not None:
            how = config.backbone
            opened = open_backbone(export.path, export.signature, how.cut or "", how.pixels or "")
            self.export = Origin(name=export.path.name, sha256=digest_folder(export.path))
            self._opened = lambda: ExportDetector(copy.deepcopy(opened), len(self.data.labels))
        identity: dict[str, Any] = {
            "config": config.model_dump(mode="json"),
            "data": self.data_sha256,
            "export": [self.export.sha256, export.signature] if self.export and export else None,
        }
        self.seconds = _begin(folder, identity)
        self._folder = folder

    def detector(self) -> Detector:
        """Trains the detector, or takes it from the folder; frozen. Raises as ``train``."""
        trained = self._made(
            _BACKBONE,
            self._opened(),
            lambda stage: train_backbone.train(
                self._opened,
                self.training,
                self.validation,
                self.config.backbone,
                seed=self.config.seed,
                stage=stage,
            ),
        )
        return freeze(trained)

    def heads(self, backbone: Detector) -> QueryHeads:
        """The same of the heads on it."""
        return self._made(
            _HEADS,
            train_heads.make_heads(self.language, self.config.heads),
            lambda stage: train_heads.train(
                backbone,
                self.training,
                self.validation,
                self.language,
                self.config.heads,
                seed=self.config.seed,
                stage=stage,
            ),
        )

    def trained(self) -> Trained:
        """Both."""
        backbone = self.detector()
        heads = self.heads(backbone)
        return Trained(
            *(self.data, self.language, self.config, backbone, heads),
            *(self.data_sha256, self.export, self.seconds),
        )

    def _made(self, name: str, empty: _Module, train_it: Callable[[Stage], _Module]) -> _Module:
        file = self._folder / name
        if not file.exists():
            started, cpu = time.monotonic(), time.process_time()
            stage = Stage(self._folder / file.stem, file.stem)
            try:
                trained = train_it(stage)
            finally:
                stage.close()
            save_weights(trained, file)
            self.seconds[file.stem] = round(time.monotonic() - started, 1)
            self.seconds[f"{file.stem}_cpu"] = round(time.process_time() - cpu, 1)
            known = json.loads((self._folder / _RUN).read_text())
            _write(self._folder / _RUN, known | {"seconds": self.seconds})
        empty.load_state_dict(load_file(file))
        return empty.eval()


def language_of(data: DetectionSet, config: ArrCocConfig) -> Language:
    """Returns what can be asked of a set; raises ``InvalidArgument`` as ``Language.make``."""
    return Language.make(data.labels, config.words, config.any_words, config.held_out)


def train(
    source: Source, config: ArrCocConfig, folder: Path, export: Export | None = None
) -> Trained:
    """Trains in ``folder``, or takes from there what is finished.

    Raises:
        FailedPrecondition: the folder is of a run with another configuration, data or export.
        InvalidArgument, NotFound: the data or the export cannot be used.
        NotFinite, ResourceExhausted: the loss is no number; the disk is full.
    """
    return Run(source, config, folder, export).trained()


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
