"""What engines on an NVIDIA GPU share: the driver, page-locked rings, and lanes of batches in flight."""
