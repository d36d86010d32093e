"""Images of damaged file systems for ``compare --images``: e2fsprogs and XFS."""
