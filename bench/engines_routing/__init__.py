"""Real engines on unequal shares of this machine's processor: what a policy does to the first token and to caches."""
