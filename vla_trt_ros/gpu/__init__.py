"""What the run time needs of CUDA: streams, events, memory, uploads, graphs, kernels of our own.
Imports cuda-python on use.
"""
