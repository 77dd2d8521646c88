"""Training of the models that replace an export.

Imports runtimes, and of serving what a trained version must agree with: how pictures are read,
how a repository is laid out. Never the server.
"""
