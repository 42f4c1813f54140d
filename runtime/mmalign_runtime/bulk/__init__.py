"""Any number of items to vectors on disk: `sources` are read, a `job` embeds them, `parts` are what survives a kill."""
