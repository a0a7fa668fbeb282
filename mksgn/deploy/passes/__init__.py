"""One transformation of a program per file; `compiler` runs them in order."""
