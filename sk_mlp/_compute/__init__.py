"""Where it is computed: devices, kernels, threads and PyTorch's modes."""
