"""How each mounted file system is now: asked of the kernel, without probes and without bcc.

`superblocks` finds what is mounted, `signs` reads what never waits for a disk, `ask` asks what
might, `judge` makes a state of both. `asker` bounds the time, `watch` tells of changes.
"""
