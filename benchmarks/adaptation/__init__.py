"""What a warm-up finds, beside NumPyro, BlackJAX and nutpie."""
