"""Routers side by side on virtual time: the swarm's policies and other projects' formulas, on the same requests."""
