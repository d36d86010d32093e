"""``fserr-bpf watch-files``: errors of the data of a changing set of files, and a hook for each."""
