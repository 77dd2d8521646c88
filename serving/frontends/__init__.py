"""One folder a contract; contracts never import each other."""
