"""The transforms for PyTorch: tensors of a table, and a module that joins features and ids."""

from __future__ import annotations

import torch

from crossfade.training.transforms.evaluate import transform
from crossfade.training.transforms.fitting import embedding_widths
from crossfade.training.transforms.spec import TransformSpec
from crossfade.training.transforms.table import Table


def tensors(spec: TransformSpec, table: Table) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, float32 [rows, n], and embedding rows, int64 [rows, n]; raises as ``transform``."""
    dense, ids = transform(spec, table)
    return torch.from_numpy(dense), torch.from_numpy(ids)


class Features(torch.nn.Module):
    """Joins features and embeddings: what a network on a table begins with.

    Attributes:
        width: features that come out.
    """

    def __init__(self, spec: TransformSpec) -> None:
        super().__init__()
        widths = embedding_widths(spec)
        self.embeddings = torch.nn.ModuleList(
            torch.nn.Embedding(rows, width)
            for rows, width in zip(spec.id_sizes, widths, strict=True)
        )
        self.width = len(spec.dense_names) + sum(widths)

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Float32 [rows, n] and int64 [rows, m] to float32 [rows, width]."""
        embedded = [e(ids[:, i]) for i, e in enumerate(self.embeddings)]
        return torch.cat([dense, *embedded], dim=1)
