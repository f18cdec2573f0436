"""Rules about the code itself: imports, exports, errors, sizes, packaging."""
