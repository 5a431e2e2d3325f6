"""A corpus encoded in shards: one file each, by any number of processes and machines."""
