"""From files to a version that takes traffic, and back: states, policies, loading, leases."""
