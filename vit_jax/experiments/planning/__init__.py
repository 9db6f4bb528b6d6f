"""What a training needs of devices that may be absent: memory, operations and time."""
