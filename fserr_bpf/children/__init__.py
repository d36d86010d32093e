"""Processes that run a module of this package, and the channel to each of them."""
