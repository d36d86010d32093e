"""Running the product against real kernels: faults, the kernel lab, comparison."""
