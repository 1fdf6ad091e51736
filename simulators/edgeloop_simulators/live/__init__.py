"""World two: thousands of real connections, from one event loop."""
