"""What runs on a machine of the swarm while the queen is connected to it: her session there, and transfers of files."""
