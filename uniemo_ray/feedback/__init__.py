"""The explicit feedback (section 5): plan, rank filter, mixing. Plain Python, no Ray.

`plan` says which images a round generates. `rank_filter.filter_shards` is the filter that a run uses: it
finds every row's rank by the external sort in `ranking/` and applies the rules in `verdicts`. `mixing`
chooses the kept images that go into the next round's training.
"""
