"""Launch, seeding, logging, signals, progress, heartbeats, and atomic files."""
