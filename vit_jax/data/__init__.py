"""Data: records, host image operations and the loader; apart, what happens on the device."""
