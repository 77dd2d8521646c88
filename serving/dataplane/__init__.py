"""The one door to the models: every front end's requests pass it."""
