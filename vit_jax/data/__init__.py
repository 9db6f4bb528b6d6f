"""From stored records to batches on the devices. Nothing here knows models or losses."""
