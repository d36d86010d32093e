"""Marks: what each hears, where it ends, and which cgroups count."""
