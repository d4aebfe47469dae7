"""A public peer on the same card and clock: realtime-vla's Triton Pi0.5 in one CUDA graph.

    git clone https://github.com/Dexmal/realtime-vla
    python benchmarks/peer_realtime_vla.py realtime-vla --json peer.json

Its code is read from the folder and never part of this repository. Random weights are made on the
GPU in its own layout. It runs ten steps in bf16, pads the prompt to a fixed length, and looks the
prompt's embeddings up before its graph, where ours does so inside. Needs a GPU with 20 GB, torch,
triton and transformers; takes a minute.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import triton
from records import peer_arguments, tell

STEPS = 10
SHAPES = '3x200x50,2x48x50,2x48x10'
"""Views, prompt tokens, horizon; 50 is its own horizon."""
CLOCK = 'graph replay, CUDA events around each, pixels on the GPU in, actions on the GPU out'


def build(module, views, tokens, horizon):
    """Its model of one shape, random weights in place, graph captured."""
    generator = torch.Generator('cuda').manual_seed(0)
    prompt = torch.randn(tokens, 2048, generator=generator, device='cuda').bfloat16()
    model = module.Pi05Inference(
        {'language_embeds': prompt}, views, horizon, discrete_state_input=False
    )
    # Its graph reads these addresses, so that weights can be drawn after it was captured.
    for name, weight in model.weights.items():
        if name == 'language_embeds':
            continue
        if name.endswith('_norm_w'):
            weight.normal_(1.0, 0.1, generator=generator)
        elif name.endswith('_b') or name == 'vision_position_embedding':
            weight.normal_(0.0, 0.02, generator=generator)
        else:
            # [layer, in, out], a patch [height, width, colour, out]
            patch = name == 'vision_patch_embedding_w'
            inputs = weight[..., 0].numel() if patch else weight.shape[-2]
            weight.normal_(0.0, inputs**-0.5, generator=generator)
    for name in ('decoder_action_out_proj_w', 'decoder_action_out_proj_b'):
        model.weights[name].mul_(-1 / STEPS)
    for name, buffer in model.buffers.items():
        if name.startswith('decoder_style_'):  # tabulated from the weights that were not there
            buffer.normal_(0.0, 0.3, generator=generator)
    return model


def parts(module, model):
    """Its three stages, each as a graph of its own."""
    weights, buffers = model.weights, model.buffers
    calls = {
        'vision_ms': lambda: module.vision_encoder(weights, buffers, model.num_views),
        'prefix_ms': lambda: module.transformer_encoder(weights, buffers, model.encoder_seq_len),
        'denoise_ms': lambda: module.transformer_decoder(weights, buffers, model.encoder_seq_len),
    }
    graphs = {}
    for name, call in calls.items():
        call()
        torch.cuda.synchronize()
        graphs[name] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[name]):
            call()
    return graphs


def milliseconds(graph, prepare, count, warm_up=20):
    """Times of ``count`` replays; the copies of ``prepare`` before each are not in them."""
    pairs = []
    for _ in range(warm_up + count):
        prepare()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in pairs[warm_up:]]


def measure(module, wanted, count, where):
    """One record."""
    views, tokens, horizon = wanted
    torch.cuda.reset_peak_memory_stats()
    model = build(module, views, tokens, horizon)
    images = torch.rand(2, views, 224, 224, 3, device='cuda').bfloat16() * 2 - 1
    noise = torch.randn(horizon, 32, device='cuda').bfloat16()
    actions = [model.forward(pixels, noise).clone() for pixels in (*images, images[0])]
    if not all(a.isfinite().all() for a in actions):
        raise SystemExit(f'{wanted}: the actions are not finite, so a time would mean nothing.')
    if not torch.equal(actions[0], actions[2]) or torch.equal(actions[0], actions[1]):
        raise SystemExit(f'{wanted}: the actions do not follow the image.')
    prompt, start = model.weights['language_embeds'], views * 256

    def prepare():
        # Its graph works on these in place.
        model.buffers['encoder_x'][start : start + tokens].copy_(prompt)
        model.buffers['diffusion_noise'].copy_(noise)

    runs = milliseconds(model.infer_graph, prepare, count)
    p50, p99 = np.percentile(runs, [50, 99])
    stages = {
        name: round(float(np.median(milliseconds(graph, prepare, count))), 3)
        for name, graph in parts(module, model).items()
    }
    return {
        'hardware': torch.cuda.get_device_name(),
        'backend': 'triton in one CUDA graph',
        'precision': 'bf16',
        'views': views,
        'prompt_tokens': tokens,
        'horizon': horizon,
        'steps': STEPS,
        'e2e_total_ms': round(float(p50), 3),
        **stages,
        'hz': round(1e3 / float(p50), 1),
        'p50_ms': round(float(p50), 3),
        'p99_ms': round(float(p99), 3),
        'n': count,
        'clock': CLOCK,
        'implementation': where,
        'gpu_memory_mib': round(torch.cuda.max_memory_allocated() / 2**20),
        'weights': 'random, seed 0',
        'software': f'torch {torch.__version__}, CUDA {torch.version.cuda}, '
        f'triton {triton.__version__}',
    }


def main():
    """Measure, print, write."""
    args = peer_arguments(__doc__, 'realtime-vla', 200, SHAPES)
    if not (args.folder / 'pi05_infer.py').is_file():
        raise SystemExit(f'{args.folder} has no pi05_infer.py: name a clone of realtime-vla.')
    sys.path.insert(0, str(args.folder))
    import pi05_infer

    where = f'realtime-vla {args.revision}'.strip()
    with torch.no_grad():
        records = [measure(pi05_infer, wanted, args.n, where) for wanted in args.shapes]
    tell(records, args.json)


if __name__ == '__main__':
    main()
