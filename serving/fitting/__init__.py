"""Weights and gates of ensembles, learned from labelled data that the members are asked about."""
