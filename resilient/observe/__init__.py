"""What happened: typed events, listeners that hear them, timelines that keep them, logs that tell them."""
