"""A runtime of your own: linear models, y = x W + b, from ``model.npz`` (arrays W and b)."""

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Signature, TensorSpec


class LinearRuntime:
    """Found by its entry point in pyproject.toml; opens the files that ``patterns`` name."""

    platform = "linear_npz"
    patterns = ("model.npz",)

    def estimate(self, artifact):
        """Bytes of memory, an upper bound: the arrays, compressed or not."""
        return 20 * artifact.path.stat().st_size

    def load(self, artifact):
        """Opens one version; what is wrong with it is told in one sentence."""
        try:
            # Nothing is unpickled: a model file must not be able to run code.
            with artifact.path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                weights, bias = file["W"].astype(np.float32), file["b"].astype(np.float32)
            return LinearSession(weights, np.broadcast_to(bias, weights.shape[1:]))
        except Exception as error:
            raise LoadFailed("model.npz must hold W [inputs, outputs] and b [outputs]") from error


class LinearSession:
    """One loaded version; safe to call from many threads, as it only reads."""

    def __init__(self, weights, bias):
        """Describes the model: any number of rows, so that crossfade may batch requests."""
        self._weights, self._bias = weights, bias
        features, targets = weights.shape
        x, y = TensorSpec("x", "FP32", (-1, features)), TensorSpec("y", "FP32", (-1, targets))
        self.signatures = {DEFAULT_SIGNATURE: Signature.derive([x], [y])}

    def run(self, inputs, signature, outputs):
        """Answers; inputs were checked against the signature before."""
        if signature not in self.signatures or not {"y"}.issuperset(outputs):
            raise InvalidArgument(
                "this model has one signature, serving_default, and one output, y"
            )
        try:
            return {"y": inputs["x"] @ self._weights + self._bias}
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidArgument("x must be FP32 [rows, inputs]") from error

    def close(self):
        """Gives the memory back."""
        del self._weights, self._bias
