"""A feature extractor cut out of an export, and what is built and trained on it."""
