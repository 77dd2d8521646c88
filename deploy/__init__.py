"""Packaging for containers and clusters; imports the configuration types of serving only."""
