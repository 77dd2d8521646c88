"""Reads the weights of an export, each with the role that the graph gives it."""
