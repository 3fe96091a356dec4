"""Swarmscale on virtual time: the core's own controller among hosts whose memory, loads and failures are drawn."""
