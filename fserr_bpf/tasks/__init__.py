"""Other tasks, as ``exec`` needs them: their calls, rights, memory, namespaces, descriptors."""
