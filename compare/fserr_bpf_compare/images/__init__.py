"""Images of file systems that somebody else made: found, recognised, unpacked, used."""
