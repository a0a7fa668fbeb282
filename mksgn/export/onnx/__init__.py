"""Export of a NIR graph, or of the teacher, to an ONNX file."""
