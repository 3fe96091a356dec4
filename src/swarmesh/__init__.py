"""Swarmesh: a private AI swarm on the machines you already own."""

__version__ = "0.1.0"
