"""The same preprocessing on a GPU: one kernel from camera bytes to the network's input."""
