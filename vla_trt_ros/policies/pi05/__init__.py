"""Pi0.5: a vision tower and a Gemma prefix make keys and values once per observation; a small
action expert reads them while it turns noise into actions, a few Euler steps of a flow.
"""
