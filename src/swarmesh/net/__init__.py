"""HTTP/1.1 over asyncio protocols: the server and the client side of the data plane."""
