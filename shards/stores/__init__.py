"""Object stores: which addresses are allowed, their file systems, and retries."""
