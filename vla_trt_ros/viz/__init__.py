"""What a run looked like: a recording of the cameras and a plot of where the time went."""
