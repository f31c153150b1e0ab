"""Where and how computations run: devices, dtypes, kernels, threads and PyTorch's modes."""
