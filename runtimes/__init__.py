"""Runtimes: the waist (``core``), one adapter a platform, and the registry that names them."""
