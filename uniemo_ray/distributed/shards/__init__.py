"""Shard in, shard out: actor pools over committed Parquet shards."""
