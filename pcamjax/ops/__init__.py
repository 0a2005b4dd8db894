"""Array operations whose fast form differs between a CPU and an accelerator."""
