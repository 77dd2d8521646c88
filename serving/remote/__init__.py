"""The ``remote`` platform: a model of another server, as a member like any other."""
