"""Crossfade: serve AutoML exports beside the models that replace them, behind one endpoint."""

__version__ = "0.1.0"
__all__ = ["__version__"]
