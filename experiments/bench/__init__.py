"""What training with Synaptic Intelligence costs: time, memory, and how both grow."""
