"""Which kernel a layer of C calls, with which constants; the kernels themselves are in runtime/."""
