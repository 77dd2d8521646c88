"""``table`` of ``model.yaml``: rows of columns, packed into one input or each an input."""

from __future__ import annotations

from typing import Annotated

import pydantic

FileName = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Table(pydantic.BaseModel):
    """What a row is, and what an answer is; files are those of the version's folder.

    Attributes:
        instance: the file that declares the columns, an OpenAPI object.
        prediction: the file that declares the fields of an answer; without it, an answer is what
            the model gives.
        input: the model's input of packed rows; its only one, by default. Without it, a model with
            an input of texts for each column gets these.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    instance: FileName
    prediction: FileName | None = None
    input: str | None = None
