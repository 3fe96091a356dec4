"""``python -m swarmesh.worker``."""

from swarmesh.worker.agent import main

main()
