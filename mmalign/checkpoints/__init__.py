"""What a run keeps of its state: tensors in files, checkpoints, and averages of them."""
