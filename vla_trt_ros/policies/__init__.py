"""Policy families. ``base`` has the protocol, ``registry`` loads the policy of a bundle."""
