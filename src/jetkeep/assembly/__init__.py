"""Assembly: what was read of a stream, whichever way and from wherever, becomes segments and a manifest."""
