"""What a card of a trained version says of the run; ``serving/repository/lineage.py`` reads it."""
