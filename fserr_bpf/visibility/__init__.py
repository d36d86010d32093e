"""What a mark hears: parts of a file system, cgroups, and where errors happened."""
