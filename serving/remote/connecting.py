"""Makes an HTTP client of a URL and its certificates."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.remote.http_client import HttpClient
from crossfade.serving.remote.options import Tls


def http_client(url: str, tls: Tls | None, folder: Path, max_answer_bytes: int) -> HttpClient:
    """Makes the client of the server that ``url`` names; nothing is connected yet.

    Args:
        url: ``http://…`` or ``https://…``; its path does not count.
        tls: certificates, for https; ``None`` is the system's.
        folder: of the files that ``tls`` names.
        max_answer_bytes: a larger answer is refused.

    Raises:
        LoadFailed: a certificate cannot be used.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http":
        return HttpClient(host, parts.port or 80, None, "", max_answer_bytes)
    files = tls or Tls()
    name = files.server_name or host
    context = _context(files, folder)
    return HttpClient(host, parts.port or 443, context, name, max_answer_bytes)


def _context(tls: Tls, folder: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=folder / tls.ca_file if tls.ca_file else None)
        if tls.cert_file and tls.key_file:
            # An encrypted key would make OpenSSL ask on the terminal.
            context.load_cert_chain(folder / tls.cert_file, folder / tls.key_file, password="")
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "no PEM"
        raise LoadFailed(f"option 'tls': a file cannot be used: {reason}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context
