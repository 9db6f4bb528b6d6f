"""What is raised for an image that cannot be read."""


class ImageError(Exception):
    """The file or its bytes are not an image that can be read; the message states why."""
