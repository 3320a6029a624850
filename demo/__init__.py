"""A few hundred real texts go through the queue to a provider and back, over REST alone: `python -m demo`."""
