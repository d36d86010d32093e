"""Bytes to values and back; pure, usable without root and without bcc."""
