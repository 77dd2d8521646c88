"""Sessions in worker processes: a crash there costs one version's requests, never the server."""
