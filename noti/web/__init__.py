"""What browsers see: streams of events, the operations endpoints and the page."""
