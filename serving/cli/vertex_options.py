"""``crossfade serve`` on Vertex AI: its options, and what the environment says."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any, Final

from crossfade.serving.cli.numbers import positive
from crossfade.serving.config import vertex_config

# What a model is called that Vertex AI has put alone into a folder, if nobody says a name.
_NAME: Final = "model"


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    option = parser.add_argument_group("Vertex AI").add_argument
    option(
        "--vertex-ai",
        action=argparse.BooleanOptionalAction,
        help="answer Vertex AI on the HTTP port (where AIP_MODE is PREDICTION)",
    )
    option(
        "--vertex-ai-default-model",
        default="",
        metavar="NAME",
        help="which model answers its requests (the only one)",
    )
    option(
        "--vertex-ai-max-payload-bytes",
        type=positive,
        default=vertex_config.MAX_PAYLOAD_BYTES,
        metavar="N",
        help="refuse requests and answers that Vertex AI would cut (%(default)s)",
    )


def apply(options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Has the environment of Vertex AI, if this is one, fill in what no option says."""
    is_on = options.vertex_ai
    if is_on is None:
        is_on = vertex_config.is_vertex(os.environ)
    if not is_on:
        return
    told = vertex_config.read(os.environ)
    settings["vertex"] = dataclasses.replace(
        told,
        default_model=options.vertex_ai_default_model,
        max_payload_bytes=options.vertex_ai_max_payload_bytes,
    )
    settings["http_port"] = told.port if options.http_port is None else options.http_port
    if options.host is None:
        settings["http_host"] = "0.0.0.0"
    if told.storage_uri and not settings["model_repositories"]:
        settings["model_repositories"] = (told.storage_uri,)
        settings["model_name"] = options.model_name or options.vertex_ai_default_model or _NAME
