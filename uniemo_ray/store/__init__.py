"""Where a run lives: stores (local disk, S3), run folders, commit records, the lease and Parquet shards."""
