"""Fading from one model to its successor: the plan, the decisions, and what is kept of them."""
