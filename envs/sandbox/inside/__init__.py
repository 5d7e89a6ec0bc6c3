"""What runs in the worker programs of the sandbox; it imports nothing but the standard library."""
