"""Names for people: of file systems, files and cgroups; all of it after delivery."""
