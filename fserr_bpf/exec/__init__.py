"""The supervisor of ``fserr-bpf exec``: a client's fanotify calls and descriptors, emulated."""
