"""``fserr-bpf top``: what has happened so far, and how a terminal shows it."""
