"""The exact rank filter on score shards of any number: an external sort in bounded memory."""
