"""What ``fserr-bpf doctor`` finds on a host, each finding with its remedy."""
