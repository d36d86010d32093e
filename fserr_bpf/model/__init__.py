"""fsnotify's notions as pure values and state: no I/O, no clock, no kernel."""
