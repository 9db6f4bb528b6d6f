"""What starts or compares whole runs."""
