"""Programs that are run for an error, in a process that keeps the rights of the start."""
