"""Queueing and stacking: Models around a Model, and the choice of their numbers."""
