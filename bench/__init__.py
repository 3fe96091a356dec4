"""Benchmarks of the whole system; each runs by itself and prints what it measured."""
