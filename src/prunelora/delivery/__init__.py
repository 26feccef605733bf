"""Delivery: checkpoints, adapters and ONNX files that load elsewhere."""
