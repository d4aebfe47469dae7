"""A network of three sums in place of Pi0.5's stages, on the CPU or on the GPU of gpu_stand_in."""

import ctypes

import numpy as np

from vla_trt_ros.gpu.mirror import mirror_of
from vla_trt_ros.policies.pi05.chains import Chain, Engines
from vla_trt_ros.preprocess.tokenize import Prompt

VIEWS = ('base', 'wrist')
SIZE, HORIZON, WIDTH = 28, 3, 4
BUCKETS, STEPS = (4, 6), (1, 5)
SHORT, LONG = Prompt((7, 8, 9), 4), Prompt((1, 2, 3, 4, 5), 6)


class Stage:
    """A network of three sums, whose result does not depend on the order of the views."""

    compacts = True

    def __init__(self, name, inputs, outputs, steps=0):
        self.name, self.inputs, self.outputs, self._steps = name, inputs, outputs, steps

    def compute(self, i, o):
        if self.name == 'vision':
            o['image_tokens'][0, :, 0] = np.abs(i['pixels']).mean((1, 2, 3))
        elif self.name.startswith('prefix'):
            mask, words = i['prefix_mask'][0], i['tokens'].shape[1]
            seen = i['image_tokens'][0, :, 0][mask[:-words]].sum()
            o['keys'][0] = seen + i['tokens'][0][mask[-words:]].sum()
        else:
            o['actions'][0] = i['noise'][0] * self._steps + i['keys'][0]

    def enqueue(self, *, stream=None):
        self.compute(self.inputs, self.outputs)


class GpuStage(Stage):
    """The same on the GPU's side of the arrays."""

    def __init__(self, gpu, name, inputs, outputs, steps=0):
        super().__init__(name, inputs, outputs, steps)
        self._gpu = gpu
        self.mirrors = {n: mirror_of(a) for n, a in (inputs | outputs).items()}
        for n, mirror in self.mirrors.items():
            mirror.written |= n in outputs

    def for_views(self, views):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def enqueue(self, *, stream=None):
        self._gpu.queue('engine', self._run)

    def _run(self):
        self.compute(self._there(self.inputs), self._there(self.outputs))

    def _there(self, arrays):
        return {n: self._device(self.mirrors[n].address, a) for n, a in arrays.items()}

    @staticmethod
    def _device(address, array):
        raw = (ctypes.c_uint8 * array.nbytes).from_address(address)
        return np.frombuffer(raw, array.dtype).reshape(array.shape)


class InsideStage(GpuStage):
    """As those of cuda_graph: what passes between stages has no mirror that others see."""

    def __init__(self, gpu, name, inputs, outputs, steps=0):
        super().__init__(gpu, name, inputs, outputs, steps)
        self._places = self.mirrors
        inside = {'image_tokens', 'keys'}
        if name.startswith('denoise'):
            inside.add('prefix_mask')
        self.mirrors = {n: m for n, m in self.mirrors.items() if n not in inside}

    def _there(self, arrays):
        return {n: self._device(self._places[n].address, a) for n, a in arrays.items()}


def engines(make, array, shared=None, **facts):
    """Engines on new arrays, but for those in ``shared``, which gets the new ones' names."""
    held = {} if shared is None else shared

    def keep(name, shape, dtype):
        if name not in held:
            held[name] = array(shape, dtype)
        return held[name]

    shapes = {
        'pixels': ((2, 3, SIZE, SIZE), np.float32),
        'image_tokens': ((1, 2, 1), np.float32),
        'noise': ((1, HORIZON, WIDTH), np.float32),
        'actions': ((1, HORIZON, WIDTH), np.float32),
    }
    a = {name: keep(name, *shape) for name, shape in shapes.items()}
    vision = make('vision', {'pixels': a['pixels']}, {'image_tokens': a['image_tokens']})
    chains = {}
    for bucket in BUCKETS:
        tokens = keep(f'tokens {bucket}', (1, bucket), np.int64)
        mask = keep(f'mask {bucket}', (1, 2 + bucket), np.bool_)
        keys = keep('keys', (1,), np.float32)
        read = {'image_tokens': a['image_tokens'], 'tokens': tokens, 'prefix_mask': mask}
        prefix = make(f'prefix, {bucket} tokens', read, {'keys': keys})
        denoise = {
            n: make(
                f'denoise, {bucket} tokens, {n} steps',
                {'noise': a['noise'], 'keys': keys, 'prefix_mask': mask},
                {'actions': a['actions']},
                n,
            )
            for n in STEPS
        }
        chains[bucket] = Chain(prefix, denoise, tokens[0], mask[0])
    return Engines(vision, chains, a['pixels'], a['noise'], a['actions'], **facts)
