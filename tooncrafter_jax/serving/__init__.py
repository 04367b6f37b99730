"""The service: jobs in a database, one thread that owns the devices, and the HTTP API before them."""
