"""How one stage runs. ``base`` has the protocol, ``registry`` finds a backend by name."""
