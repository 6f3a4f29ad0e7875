"""A Ray head of your own on this machine: loopback only, free ports, token authentication."""
