"""Requests to hosts: connections, the addresses they may go to, what is answered."""
