"""Released weight files by name, and their download."""
