"""Swarms of several machines: what it takes to join, to spawn, to lose a link and to find everything again."""
