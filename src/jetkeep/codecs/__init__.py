"""Sans-I/O formats: bytes in, values out."""
