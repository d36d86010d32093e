"""A run that goes on for years: its description, its numbers, its outputs, its state for others."""
