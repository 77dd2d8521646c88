"""Writes a trained run as one ONNX file: pictures and text in, tokens of every patch out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.runtimes.extras import require
from crossfade.serving.repository.lineage import Parity
from crossfade.training.arr_coc.allocator import TokenAllocator
from crossfade.training.arr_coc.backbone import Detector
from crossfade.training.arr_coc.geometry import GRID_HEIGHT, GRID_WIDTH, INPUT_HEIGHT, INPUT_WIDTH
from crossfade.training.arr_coc.model import QueryHeads
from crossfade.training.arr_coc.patch_statistics import PatchStatistics
from crossfade.training.arr_coc.queries import MAX_WORDS, PAD, Language
from crossfade.training.arr_coc.run import Trained
from crossfade.training.arr_coc.text_graph import IR_VERSION, OPSET, text_graph
from crossfade.training.core import onnx_file
from crossfade.training.lineage import facts

OUTPUTS: Final = ("patch_tokens", "relevance", "fallback")
_TOLERANCE: Final = 1e-3  # of a probability, between PyTorch and ONNX Runtime


class Served(nn.Module):
    """Everything that is served, but for the text.

    Args:
        backbone, heads: trained.
        thresholds: of the recall that is served where no budget is given, by kind; "any" is last.
        word_kinds: the kind that each token number means, ``-1`` for other words.
    """

    def __init__(
        self, backbone: Detector, heads: QueryHeads, thresholds: Tensor, word_kinds: Tensor
    ) -> None:
        super().__init__()
        self.backbone, self.heads = backbone, heads
        self.statistics, self.allocator = PatchStatistics(), TokenAllocator()
        # Of several classes that are named, the most careful threshold counts.
        by_word = torch.where(word_kinds >= 0, thresholds[word_kinds], torch.ones(()))
        self.register_buffer("by_word", by_word)
        self.register_buffer("fallback_threshold", thresholds[-1])

    def forward(
        self, image: Tensor, tokens: Tensor, token_budget: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Allocates.

        Args:
            image: FP32 ``[N, 3, INPUT_HEIGHT, INPUT_WIDTH]``, 0 to 255.
            tokens: INT64 ``[N, Q, MAX_WORDS]``.
            token_budget: INT32 ``[N, Q]``; 0 is the fixed recall.

        Returns:
            ``tokens`` INT32 and ``relevance`` FP32 ``[N, Q, GH, GW]``, ``fallback`` BOOL
            ``[N, Q]``: no class was named, so that any is meant.
        """
        image = image.clamp(0, 255)  # what is beyond is no pixel, and overflows somewhere behind
        scores = self.heads(self.backbone(image), self.statistics(image), tokens)
        relevance = scores.logits.sigmoid()
        threshold = self.by_word[tokens].amin(dim=-1)  # type: ignore[index]
        unnamed = threshold >= 1.0
        threshold = torch.where(unnamed, self.fallback_threshold, threshold)  # type: ignore[arg-type]
        given = self.allocator(relevance, scores.log_losses, threshold, token_budget.long())
        grid = (GRID_HEIGHT, GRID_WIDTH)
        return given.int().unflatten(-1, grid), relevance.unflatten(-1, grid), unnamed


def served(trained: Trained, thresholds: Mapping[str, float]) -> Served:
    """Puts a run together as it is served; ``thresholds`` by label, and "any"."""
    language = trained.language
    kinds = torch.full((len(language.vocabulary) + 1,), -1, dtype=torch.int64)
    shared = set()
    for kind, phrases in enumerate(language.class_words):
        for number in np.unique(language.tokens(phrases)):
            shared |= {int(number)} if kinds[number] not in (-1, kind) else set()
            kinds[number] = kind
    for number in (PAD, *shared):  # "blood" of "red blood cells" does not name a class
        kinds[number] = -1
    values = torch.tensor([thresholds[label] for label in (*language.labels, "any")])
    return Served(trained.backbone, trained.heads, values, kinds).eval()


def write(trained: Trained, thresholds: Mapping[str, float], file: Path) -> Parity:
    """Writes the ONNX file, and proves that it answers as PyTorch does.

    Raises:
        MissingExtra: ``[training]`` is not installed.
        FailedPrecondition: PyTorch cannot write it, or the file answers otherwise.
    """
    onnx = require("onnx", "training", "writing ONNX files")
    module = _write_numeric(trained, thresholds, file)
    onnx.save(_join(onnx, text_graph(trained.language), onnx.load(str(file))), str(file))
    _, texts, _ = examples(trained.language)
    return _prove(module, trained.language, file, {"query": np.array(texts, dtype=object)})


def write_vision(trained: Trained, thresholds: Mapping[str, float], file: Path) -> Parity:
    """Writes and proves the same without the text: it takes ``tokens`` of ``text_graph`` instead.

    Raises as ``write``.
    """
    module = _write_numeric(trained, thresholds, file)
    _, texts, _ = examples(trained.language)
    tokens = np.stack([trained.language.tokens(row) for row in texts])
    return _prove(module, trained.language, file, {"tokens": tokens})


def _write_numeric(trained: Trained, thresholds: Mapping[str, float], file: Path) -> Served:
    module = served(trained, thresholds)
    image, _, budget = examples(trained.language)
    tokens = torch.zeros(*budget.shape, MAX_WORDS, dtype=torch.int64)
    example = {
        "image": torch.from_numpy(image),
        "tokens": tokens,
        "token_budget": torch.from_numpy(budget),
    }
    n, q = torch.export.Dim("N"), torch.export.Dim("Q")
    free = {"image": {0: n}, "tokens": {0: n, 1: q}, "token_budget": {0: n, 1: q}}
    onnx_file.write(module, example, OUTPUTS, file, opset=OPSET, dynamic=free)
    return module


def examples(language: Language) -> tuple[np.ndarray, list[list[str]], np.ndarray]:
    """Returns pictures, queries and budgets that reach every branch."""
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (2, 3, INPUT_HEIGHT, INPUT_WIDTH)).astype(np.float32)
    image[1] = np.linspace(0, 255, INPUT_WIDTH, dtype=np.float32)
    said = [language.phrases(query)[0] for query in language.queries]
    return (
        image,
        [[said[0], said[1]], ["", f"{said[-1].upper()} unheard-of"]],
        np.array([[0, 20_000], [12_288, 0]], dtype=np.int32),
    )


def _join(onnx: Any, text: Any, numeric: Any) -> Any:
    numeric.ir_version = IR_VERSION
    present = {entry.domain for entry in numeric.opset_import}
    numeric.opset_import.extend(e for e in text.opset_import if e.domain not in present)
    text = onnx.compose.add_prefix(text, "text/", rename_inputs=False, rename_outputs=False)
    joined = onnx.compose.merge_models(text, numeric, io_map=[("tokens", "tokens")])
    del joined.opset_import[:]  # both graphs' were put one after the other
    joined.opset_import.extend(numeric.opset_import)
    onnx.checker.check_model(joined)
    return joined


def _prove(
    module: Served, language: Language, file: Path, said: Mapping[str, np.ndarray]
) -> Parity:
    """Compares relevances by ``facts.parity``; budgets must be met exactly."""
    image, texts, budget = examples(language)
    ort = require("onnxruntime", "training", "checking ONNX files")
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed = {**said, "token_budget": budget}
    tokens = torch.from_numpy(np.stack([language.tokens(row) for row in texts]))

    @torch.inference_mode()
    def ours(batch: Any) -> Any:
        return module(torch.from_numpy(batch), tokens, torch.from_numpy(budget))[1].numpy()

    def theirs(batch: Any) -> Any:
        given, relevance = session.run(OUTPUTS[:2], {"image": batch, **feed})
        sums = given.sum(axis=(2, 3))
        if (sums != budget)[budget > 0].any():
            raise FailedPrecondition("the ONNX file does not spend its budgets exactly")
        return relevance

    return facts.parity(ours, theirs, [image], _TOLERANCE)
