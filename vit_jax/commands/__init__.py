"""One module a command: its flags, its calls, what it prints."""
