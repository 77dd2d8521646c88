"""Benchmarks: crossfade against its peers and against its own limit, in one run on one machine."""
