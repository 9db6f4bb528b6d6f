"""Files on disks and in buckets (`gs://`, `s3://`) by one set of functions."""
