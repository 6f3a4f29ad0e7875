"""Published ways to make images of an emotion, trained and sampled by the same engine as UniEmo."""
