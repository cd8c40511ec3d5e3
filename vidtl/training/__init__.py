"""The training engine: one optimizer step, the loop around it, and checkpoints that resume bitwise."""
