"""Where things lie and how they are set: the home directory, `swarmesh.toml`, and who may speak for a worker."""
