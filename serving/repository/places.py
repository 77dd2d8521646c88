"""Models that lie anywhere, each in a folder of its own: a map of names to places."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.config.model_config import OF_LEAVES, ModelConfig
from crossfade.serving.repository.folders import no_folder, open_folder
from crossfade.serving.repository.layout import ModelFiles, VersionFiles, check_name

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a model lies and what is said of it elsewhere.

    Attributes:
        location: its folder, or any URL that fsspec opens.
        settings: fields of ``ModelConfig`` that count more than what the folder says.
    """

    location: str
    settings: Settings = dataclasses.field(default_factory=dict)


def _nothing(_: ModelFiles) -> Settings:
    return {}


class PlacedSource:
    """A ``Source`` of models that lie in different places. Immutable.

    Args:
        places: by the model's name.
        cache: where remote versions are copied to; ``None`` is the user's cache folder.
        defaults: fields of ``ModelConfig`` for what a model's folder does not say.

    Raises:
        InvalidArgument: no model may have one of the names.
        NotFound, MissingExtra: as ``open_source``, for the URL of a place.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        cache: Path | None = None,
        defaults: Callable[[ModelFiles], Settings] = _nothing,
    ) -> None:
        self._places = {check_name(name): place for name, place in places.items()}
        self._folders = {n: open_folder(place.location, cache) for n, place in places.items()}
        self._defaults = defaults

    def names(self) -> list[str]:
        """See ``Source.names``; also those whose folder is not there yet."""
        return sorted(self._places)

    def read(self, name: str, override: ModelConfig | None = None) -> ModelFiles:
        """See ``Source.read``."""
        place = self._places.get(check_name(name))
        if place is None:
            raise no_folder(name)
        files = self._folders[name].read(name, override)
        own = files.config
        settings = {
            **{k: v for k, v in self._defaults(files).items() if k not in own.model_fields_set},
            **place.settings,
        }
        if own.ensemble is not None:  # what is said of all models is not for those without files
            settings = {k: v for k, v in settings.items() if k not in OF_LEAVES}
        try:
            config = ModelConfig.model_validate({**own.model_dump(exclude_unset=True), **settings})
        except ValueError:
            raise LoadFailed(f"the settings of model '{name}' contradict its folder's") from None
        # Two folders may have files of the same names, sizes and times; they are not the same.
        key = hashlib.sha256(place.location.encode()).hexdigest()
        versions = {
            number: dataclasses.replace(found, fingerprint=f"{found.fingerprint}{key}")
            for number, found in files.versions.items()
        }
        return dataclasses.replace(files, config=config, versions=versions)

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        """See ``Source.fetch``."""
        return self._folders[model.name].fetch(model, version)
