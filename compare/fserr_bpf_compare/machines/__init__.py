"""The kernel lab: which kernels, where they come from, and machines that boot them."""
