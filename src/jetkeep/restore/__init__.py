"""Put streams back exactly: plan with reasons, restore under a name that takes no publishes, compare, then open."""
