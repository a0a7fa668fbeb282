"""A NIR graph, or the teacher, as an ONNX file."""
