"""The crossfade command."""
