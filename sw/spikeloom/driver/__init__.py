"""Host side of a device: registers, buffers, and the API that programs use."""
