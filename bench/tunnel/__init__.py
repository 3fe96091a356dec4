"""What a worker on another machine costs: the queen's relay through an SSH connection beside the same without one."""
