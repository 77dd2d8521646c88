"""What may be said of a model of another server."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import pydantic

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.model import TensorSpec
from crossfade.runtimes.options import Options

Protocol = Literal[
    "open_inference_grpc",
    "open_inference_http",
    "tensorflow_serving_grpc",
    "tensorflow_serving_rest",
    "vertex",
]
_GRPC: Final = frozenset({"open_inference_grpc", "tensorflow_serving_grpc"})
_TENSORFLOW: Final = frozenset({"tensorflow_serving_grpc", "tensorflow_serving_rest"})
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
# Those that frame a message are ours.
_RESERVED: Final = re.compile(
    r"grpc-.*|host|content-.*|transfer-encoding|connection|te|upgrade|expect|accept-encoding"
)
_TARGET: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
PositiveMs = Annotated[float, pydantic.Field(gt=0, le=86_400_000, allow_inf_nan=False)]


class Tls(Options):
    """PEM files, from the version's folder or by absolute path; without ``ca_file`` the system's.

    Attributes:
        cert_file, key_file: what this server shows of itself (mutual TLS).
        server_name: whose certificate the other one must show, if not its host's.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None

    @pydantic.model_validator(mode="after")
    def _pair(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class CircuitBreaker(Options):
    """After so many failures in a row the server is left alone for so long."""

    failures: Annotated[int, pydantic.Field(ge=1)] = 5
    pause_ms: PositiveMs = 1000


class Declared(Options):
    """An input or output where the protocol has no metadata.

    Attributes:
        shape: with the batch dimension; -1 is any size.
        encoding: how Vertex AI gets an element of BYTES: as text, as a string of base64, or as
            ``{"b64": …}``.
    """

    name: Annotated[str, pydantic.Field(min_length=1)]
    dtype: str
    shape: list[Annotated[int, pydantic.Field(ge=-1)]]
    optional: bool = False
    encoding: Literal["text", "base64", "b64"] = "text"

    @pydantic.field_validator("dtype")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in NUMPY:
            raise ValueError(f"unknown dtype; one of {', '.join(NUMPY)}")
        return value

    def spec(self) -> TensorSpec:
        """The same as the waist has it."""
        return TensorSpec(self.name, self.dtype, tuple(self.shape), self.optional)


class RemoteOptions(Options):
    """The whole of ``remote.yaml``, or of ``options`` in ``model.yaml``.

    Attributes:
        url: ``host:port`` for gRPC; ``http://…`` or ``https://…`` else, for Vertex AI up to and
            with ``:predict``.
        model: its name there; by default the name here.
        version: its version there; by default whichever it serves.
        signature: the one signature that is offered (TensorFlow Serving); by default all.
        timeout_ms: for a request with all its retries; a caller's nearer deadline counts.
        retries: at most, for one request.
        max_answer_bytes: a larger answer is refused.
        headers: sent with every request.
        token_file: its text is sent as a bearer token; read again when it changes.
        google_auth: the token is Google's, by application default credentials.
        binary_tensors: the server takes Triton's binary tensors (``open_inference_http``).
        parameters: sent with every request to Vertex AI.
        inputs, outputs: declared instead of read from the server.
    """

    protocol: Protocol
    url: str
    model: Annotated[str, pydantic.Field(pattern=r"^[^/:?#\s]+$")] | None = None
    version: Annotated[int, pydantic.Field(ge=1)] | None = None
    signature: str | None = None
    timeout_ms: PositiveMs = 30_000
    retries: Annotated[int, pydantic.Field(ge=0, le=10)] = 2
    breaker: CircuitBreaker = CircuitBreaker()
    max_answer_bytes: Annotated[int, pydantic.Field(ge=1, le=2**31 - 1)] = 64 * 1024 * 1024
    tls: Tls | None = None
    headers: Mapping[str, str] = pydantic.Field(default_factory=dict)
    token_file: str | None = None
    google_auth: bool = False
    binary_tensors: bool = True
    parameters: Mapping[str, Any] = pydantic.Field(default_factory=dict)
    inputs: list[Declared] = pydantic.Field(default_factory=list)
    outputs: list[Declared] = pydantic.Field(default_factory=list)

    @property
    def is_grpc(self) -> bool:
        """Whether ``url`` is a gRPC target."""
        return self.protocol in _GRPC

    @property
    def is_private(self) -> bool:
        """Whether nobody between here and there can read along."""
        if self.is_grpc:
            return self.tls is not None or _is_here(self.url.rpartition(":")[0].strip("[]"))
        parts = urlsplit(self.url)
        return parts.scheme == "https" or _is_here(parts.hostname or "")

    @pydantic.field_validator("headers")
    @classmethod
    def _sendable(cls, values: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in values.items():
            if not _HEADER_NAME.fullmatch(name) or _RESERVED.fullmatch(name):
                raise ValueError(f"'{name}' is no header that can be set; names are in lower case")
            if not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"the value of '{name}' cannot be sent")
        return values

    @pydantic.model_validator(mode="after")
    def _agree(self) -> RemoteOptions:
        if self.is_grpc and not _TARGET.fullmatch(self.url):
            raise ValueError(f"url must be host:port for {self.protocol}")
        if not self.is_grpc:
            _check_url(self.url, self.tls)
        if self.signature and self.protocol not in _TENSORFLOW:
            raise ValueError(f"{self.protocol} has no signatures")
        if self.protocol != "vertex" and self.parameters:
            raise ValueError("parameters are for vertex")
        if bool(self.inputs) != bool(self.outputs):
            raise ValueError("declare inputs and outputs, or neither")
        if self.protocol == "vertex" and not self.inputs:
            raise ValueError("vertex has no metadata: declare inputs and outputs")
        if self.google_auth and self.token_file:
            raise ValueError("give token_file or google_auth")
        if (self.google_auth or self.token_file) and not self.is_private:
            raise ValueError("a token is not sent in the clear: use https, or tls with gRPC")
        return self


def _check_url(url: str, tls: Tls | None) -> None:
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine = False
    known = port_is_fine and parts.scheme in ("http", "https") and parts.hostname
    if not known or parts.username or parts.query or parts.fragment or not url.isascii():
        raise ValueError("url must be http://host:port/path or https://…, and no more")
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("url has characters that no URL has")
    if tls is not None and parts.scheme == "http":
        raise ValueError("tls needs an https url")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
