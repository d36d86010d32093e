"""Scenarios run on a kernel: both sides, what each read, one cell at the end."""
