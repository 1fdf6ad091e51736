"""Objects to ONNX files. Each module imports its framework only when an object of it comes."""
