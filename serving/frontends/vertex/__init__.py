"""Vertex AI's contract with a container that serves predictions."""
