"""The running kernel's interface: system calls, mounts, handles, privileges."""
