"""``python -m swarmesh.remote``."""

from swarmesh.remote.connection import main

main()
