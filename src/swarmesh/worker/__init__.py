"""The rustbee process."""
