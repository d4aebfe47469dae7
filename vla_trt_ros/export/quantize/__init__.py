"""From the float graphs of a stage to graphs of another precision. ``stage`` is the way in."""
