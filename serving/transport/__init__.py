"""The seam between the contracts and the network: tables of RPCs and routes, and their hosts."""
