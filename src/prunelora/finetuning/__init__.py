"""Fine-tuning: LoRA with a rank for every matrix, and the training loop around it."""
