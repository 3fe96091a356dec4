"""The relay benchmark: what one request and one streamed chunk cost in the queen and in her peers."""
