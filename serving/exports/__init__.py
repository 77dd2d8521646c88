"""What others export: recognised, looked into without their libraries, written as a repository."""
