"""The reading side of Server-Sent Events, for our own tools and tests."""
