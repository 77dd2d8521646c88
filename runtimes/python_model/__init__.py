"""Models that are Python code of the server's operator."""
