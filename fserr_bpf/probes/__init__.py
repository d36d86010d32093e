"""The probes: what there is to attach, how it is compiled, loaded and read."""
