"""Kills what serves, again and again, and compares what clients saw with what they would have seen."""
