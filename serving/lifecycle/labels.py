"""Class names: of the configuration, or of a label file that lies beside the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Signature
from crossfade.serving.repository.layout import ModelFiles


def of(
    model: ModelFiles, folder: Path, signatures: Mapping[str, Signature]
) -> dict[str, Sequence[str]]:
    """Class names by output: as configured, else of the one output that has as many scores."""
    if labels := configured(model):
        return labels
    found = names(model, folder)
    fitting = {
        spec.name
        for signature in signatures.values()
        for spec in signature.outputs
        if spec.shape and spec.shape[-1] == len(found) and spec.dtype != "BYTES"
    }
    return dict.fromkeys(fitting, found) if len(fitting) == 1 else {}


def configured(model: ModelFiles) -> dict[str, Sequence[str]]:
    """Class names by output, of those that the configuration says something about.

    Raises:
        LoadFailed: it names a label file that is not there.
    """
    labels: dict[str, Sequence[str]] = {}
    for output in model.config.outputs:
        if output.labels is not None:
            labels[output.name] = output.labels
        elif output.labels_file is not None:
            text = model.label_files.get(output.labels_file)
            if text is None:
                raise LoadFailed(f"there is no label file '{output.labels_file}'")
            labels[output.name] = text.splitlines()
    return labels


def names(model: ModelFiles, folder: Path) -> list[str]:
    """The class names of the first label file there is; empty without one."""
    files = [folder / name for name in ("labels.txt", "dict.txt")]
    texts = [path.read_text("utf-8", "replace") for path in files if path.is_file()]
    return next((text.splitlines() for text in [*texts, *model.label_files.values()]), [])
