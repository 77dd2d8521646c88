"""What runs inside the peers' own virtual environments: their models, on the shared session."""
