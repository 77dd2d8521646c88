"""The thresholds of the gate: one file, replaced or changed by the user's own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import pydantic
import yaml

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.runtimes.options import explain

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Count = Annotated[int, pydantic.Field(ge=0)]
_MAX_BYTES = 1 << 20


class Policy(pydantic.BaseModel):
    """See ``policy.yaml``, which has a line about each."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    max_rows: Annotated[int, pydantic.Field(ge=100)]
    min_rows: Count
    min_rows_per_class: Count
    max_missing_target: Share
    max_conflicting: Share
    max_test_in_training: Share
    leakage_auc: Share
    leakage_r_squared: Share
    max_label_noise: Share
    label_noise_surest: Annotated[float, pydantic.Field(gt=0, le=1)]
    max_gross_errors: Share
    max_noise_features: Share
    warn_missing: Share
    warn_minority: Share
    warn_noise_features: Share
    warn_label_noise: Share
    fix_data_below: Share
    deploy_from: Share


def load(path: Path | None = None) -> Policy:
    """The shipped policy, changed by the keys of a file.

    Raises:
        NotFound: there is no such file.
        InvalidArgument: it is no YAML object, or has a key or value that is wrong.
    """
    text = resources.files(__package__).joinpath("policy.yaml").read_text("utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    if path is not None:
        values |= _own(path)
    try:
        return Policy.model_validate(values)
    except pydantic.ValidationError as error:
        raise InvalidArgument(f"the policy: {explain(error, Policy, 'key')}") from None


def _own(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES)
        document = yaml.safe_load(content)
    except FileNotFoundError:
        raise NotFound(f"there is no policy {path.name}") from None
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidArgument(f"the policy {path.name} is no YAML object")
    return {str(key): value for key, value in document.items()}
