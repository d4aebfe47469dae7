"""Pi0.5 once more, in float64 NumPy and from the equations: an oracle for the PyTorch model.

It shares no code with it and takes other turns where it can: heads in a loop, keys and values
repeated, masked tokens removed instead of biased away, the whole prefix computed.
"""

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def gelu(x):
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1.0 + np.exp(-x))


def rms(x):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def layer_norm(x, weight, bias):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * weight + bias


def rope(x, position):
    """One head [tokens, D]: each pair (i, i + D / 2) turned as a complex number."""
    half = x.shape[1] // 2
    pairs = x[:, :half] + 1j * x[:, half:]
    frequency = 10_000.0 ** (-2.0 * np.arange(half) / x.shape[1])
    turned = pairs * np.exp(1j * np.asarray(position)[:, None] * frequency)
    return np.concatenate([turned.real, turned.imag], axis=1)


def time_features(t, width):
    n = width // 2
    periods = [4e-3 * 1000.0 ** (i / (n - 1)) for i in range(n)]
    angles = 2.0 * np.pi * t / np.array(periods)
    return np.concatenate([np.sin(angles), np.cos(angles)])


class Oracle:
    """Built from a model's config and state dict; every method is float64."""

    def __init__(self, config, state_dict):
        self.c = config
        self.w = {k: v.double().numpy() for k, v in state_dict.items()}

    def linear(self, name, x):
        y = x @ self.w[f'{name}.weight'].T
        return y + self.w[f'{name}.bias'] if f'{name}.bias' in self.w else y

    def image_tokens(self, view):
        """One view [3, S, S] -> [T, prefix width]."""
        c, p = self.c, self.c.patch
        kernel = self.w['vision_tower.embeddings.patch_embedding.weight']
        bias = self.w['vision_tower.embeddings.patch_embedding.bias']
        rows = []
        for top in range(0, c.image_size, p):
            for left in range(0, c.image_size, p):
                patch = view[:, top : top + p, left : left + p]
                rows.append((kernel * patch).sum(axis=(1, 2, 3)) + bias)
        x = np.array(rows) + self.w['vision_tower.embeddings.position_embedding.weight']
        for i in range(c.vision.depth):
            x = self._vision_layer(f'vision_tower.encoder.layers.{i}', x)
        name = 'vision_tower.post_layernorm'
        x = layer_norm(x, self.w[f'{name}.weight'], self.w[f'{name}.bias'])
        return self.linear('multi_modal_projector.linear', x)

    def _vision_layer(self, name, x):
        def norm(which, y):
            return layer_norm(y, self.w[f'{name}.{which}.weight'], self.w[f'{name}.{which}.bias'])

        y = norm('layer_norm1', x)
        q, k, v = (self.linear(f'{name}.self_attn.{p}_proj', y) for p in 'qkv')
        size = q.shape[1] // self.c.vision.heads
        heads = []
        for at in range(0, q.shape[1], size):
            h = slice(at, at + size)
            heads.append(softmax(q[:, h] @ k[:, h].T / np.sqrt(size)) @ v[:, h])
        x = x + self.linear(f'{name}.self_attn.out_proj', np.concatenate(heads, axis=1))
        y = gelu(self.linear(f'{name}.mlp.fc1', norm('layer_norm2', x)))
        return x + self.linear(f'{name}.mlp.fc2', y)

    def _keys_values(self, name, x, position):
        p = self.c.prefix
        k = np.split(self.linear(f'{name}.k_proj', x), p.kv_heads, axis=1)
        v = np.split(self.linear(f'{name}.v_proj', x), p.kv_heads, axis=1)
        return [rope(head, position) for head in k], v

    def _attend(self, name, x, position, keys, values):
        p = self.c.prefix
        heads = []
        for i, q in enumerate(np.split(self.linear(f'{name}.q_proj', x), p.heads, axis=1)):
            group = i // (p.heads // p.kv_heads)
            logits = rope(q, position) @ keys[group].T / np.sqrt(p.head_dim)
            heads.append(softmax(logits) @ values[group])
        return self.linear(f'{name}.o_proj', np.concatenate(heads, axis=1))

    def _geglu(self, name, x):
        gate = gelu(self.linear(f'{name}.gate_proj', x))
        return self.linear(f'{name}.down_proj', gate * self.linear(f'{name}.up_proj', x))

    def cache(self, views, tokens):
        """Views that are there [3, S, S] each, prompt tokens -> per layer (keys, values)."""
        embedding = self.w['language_model.embed_tokens.weight'][list(tokens)]
        text = embedding * np.sqrt(self.c.prefix.width)
        x = np.concatenate([*(self.image_tokens(v) for v in views), text])
        position = np.arange(len(x))
        found = []
        for i in range(self.c.prefix.depth):
            name = f'language_model.layers.{i}'
            y = rms(x) * (1.0 + self.w[f'{name}.input_layernorm.weight'])
            keys, values = self._keys_values(f'{name}.self_attn', y, position)
            found.append((keys, values))
            if i < self.c.prefix.depth - 1:
                x = x + self._attend(f'{name}.self_attn', y, position, keys, values)
                y = rms(x) * (1.0 + self.w[f'{name}.post_attention_layernorm.weight'])
                x = x + self._geglu(f'{name}.mlp', y)
        return found

    def condition(self, t):
        y = silu(self.linear('time_mlp_in', time_features(t, self.c.expert.width)))
        return silu(self.linear('time_mlp_out', y))

    def _ada(self, name, x, condition):
        scale, shift, gate = np.split(self.linear(f'{name}.dense', condition), 3)
        return rms(x) * (1.0 + scale) + shift, gate

    def velocity(self, x, t, cache):
        condition = self.condition(t)
        start = cache[0][0][0].shape[0]
        position = start + np.arange(len(x))
        h = self.linear('action_in_proj', x)
        for i, (prefix_keys, prefix_values) in enumerate(cache):
            name = f'expert.layers.{i}'
            y, gate = self._ada(f'{name}.input_layernorm', h, condition)
            keys, values = self._keys_values(f'{name}.self_attn', y, position)
            keys = [np.concatenate(pair) for pair in zip(prefix_keys, keys, strict=True)]
            values = [np.concatenate(pair) for pair in zip(prefix_values, values, strict=True)]
            h = h + gate * self._attend(f'{name}.self_attn', y, position, keys, values)
            y, gate = self._ada(f'{name}.post_attention_layernorm', h, condition)
            h = h + gate * self._geglu(f'{name}.mlp', y)
        return self.linear('action_out_proj', self._ada('expert.norm', h, condition)[0])

    def actions(self, views, tokens, noise, num_steps):
        """Normalised actions [H, A]."""
        cache = self.cache(views, tokens)
        x, t = noise.astype(np.float64), 1.0
        for _ in range(num_steps):
            x = x - self.velocity(x, t, cache) / num_steps
            t -= 1.0 / num_steps
        return x
