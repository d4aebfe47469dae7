"""Bags into data to learn from, and back: LeRobot data sets, and statistics as openpi has them."""
