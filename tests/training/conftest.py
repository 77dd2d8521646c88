"""Exports that Keras writes once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training import keras_models


@pytest.fixture(scope="session")
def small_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small_net")
    keras_models.small_net(folder)
    return folder


@pytest.fixture(scope="session")
def table_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table_net")
    keras_models.table_net(folder)
    return folder
