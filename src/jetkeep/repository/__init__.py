"""The storage edge: where every object lies, how it becomes durable, and what a reader may believe."""
