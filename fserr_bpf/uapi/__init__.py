"""Layouts and numbers of the kernel's and our own ABIs: no logic."""
