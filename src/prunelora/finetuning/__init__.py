"""Fine-tuning: LoRA adapters with a rank for every matrix, and training with transformers' Trainer."""
