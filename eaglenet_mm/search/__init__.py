"""Search in one's own videos: an index, and two stages over it."""
