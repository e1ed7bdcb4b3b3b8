"""Services that take notifications: a protocol, and Apprise behind it."""
