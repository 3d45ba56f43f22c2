"""How long, how much, how many: a scale plan by simulation, from measured rates."""
