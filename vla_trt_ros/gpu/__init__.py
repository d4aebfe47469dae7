"""What the run time needs of CUDA: streams, events, memory, graphs. Imports cuda-python on use."""
