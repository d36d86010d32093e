"""Tests that touch the running kernel; most need root."""
