"""Policy scripts: Starlark in a process of its own, bounded in time and memory, that says how the swarm decides."""
