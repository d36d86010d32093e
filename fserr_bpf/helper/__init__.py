"""The process that may wait for a disk, and the questions that it is asked."""
