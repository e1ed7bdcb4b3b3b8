"""How the archive is, told outside: what is wrong to people, numbers to Prometheus."""
