"""A virtual world around the core: the same `Swarm`, thousands of workers, faults by seed, no real time."""
