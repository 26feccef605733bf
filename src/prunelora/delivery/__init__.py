"""Delivery: model folders, adapter folders and ONNX files that other tools can load."""
