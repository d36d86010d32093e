"""One group: the rules of its stream, its marks, its queue, and what brings records to it."""
