"""The external sort behind `feedback.rank_filter`: exact ranks of rows in many shards, in bounded memory."""
