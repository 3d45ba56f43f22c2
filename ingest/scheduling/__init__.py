"""Which row is asked for next: queues of hosts, how each is treated, when to try again."""
