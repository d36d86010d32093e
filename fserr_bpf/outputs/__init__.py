"""Events to text, JSON lines, msgpack or raw records; no policy."""
