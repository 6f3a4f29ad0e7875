"""How training reads its images: an order, pieces of shards on this machine's disk, decoding threads."""
