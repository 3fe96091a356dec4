"""Engines, load and routers on virtual time: who gets a request, and what its client sees of that."""
