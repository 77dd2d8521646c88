"""Crossfade's own contract: fades and feedback, over gRPC and HTTP."""
