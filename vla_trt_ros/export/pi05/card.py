"""What a bundle says about itself, for people."""

from __future__ import annotations

from vla_trt_ros.export.pi05.job import ExportJob, Prepared, graph_bytes, read_card

_CARD = """# {name}

{about}

- Robot: {robot}, {joints}; rows of {step_ms:g} ms, {horizon} a chunk
- Views: {views}, {image_size} x {image_size} pixels
- Prompt: {prompt}, up to {tokens} tokens; {vocabulary}
- Weights: {weights:.1f} million, {precisions}
- Normalisation: {normalization}
- Licence: {licence}

Made by: `{command}`
"""
_RANDOM = """\
A Pi0.5-shaped policy of size `{size}` with **random weights** (seed {seed}): the same stages,
tensors and code paths as a trained one, and actions that mean nothing. Use it to try a
robot's wiring, to measure time and to test; never to judge behaviour."""
_TRAINED = """A Pi0.5 policy from the checkpoint `{checkpoint}` ({layout} layout)."""
_STATE = {'none': 'task', 'real': 'task and state', 'padded': 'task and padded state'}


def model_card(prepared: Prepared) -> str:
    """README.md of the bundle: the job's own, or one of what is known."""
    job, config, layout = prepared.job, prepared.config, prepared.layout
    if job.card:
        return read_card(job.card)
    checkpoint = prepared.checkpoint
    if checkpoint is None or job.checkpoint is None:
        about = _RANDOM.format(size=job.size, seed=job.seed)
    else:
        folder = job.checkpoint.resolve().name
        about = _TRAINED.format(checkpoint=folder, layout=checkpoint.layout)
    return _CARD.format(
        name=job.out.resolve().name,
        about=about,
        robot=job.robot.name,
        joints=', '.join(f'{a.joint} ({a.kind})' for a in layout.actions),
        step_ms=layout.step_dt * 1e3,
        horizon=config.horizon,
        views=', '.join(config.views),
        image_size=config.image_size,
        prompt=_STATE[config.prompt_state],
        tokens=config.max_prompt_tokens,
        vocabulary=(
            "vocabulary trained on this project's own prompts"
            if checkpoint is None
            else f'vocabulary of {config.vocab_size} pieces'
        ),
        weights=graph_bytes(config, ('fp32',)) / 4e6,
        precisions=_precisions(job),
        normalization=(
            f'{prepared.statistics.method}, from data'
            if checkpoint or job.stats
            else "from the robot's limits, not from data"
        ),
        licence=job.licence
        or ('that of the checkpoint' if checkpoint else 'Apache-2.0, as the rest of the package'),
        command=command_line(prepared),
    )


def _precisions(job: ExportJob) -> str:
    words = []
    if job.precisions:
        stored = ' (stored as float16)' if job.half else ''
        words.append(f'{", ".join(job.precisions)} ONNX{stored}')
    if job.fast:
        words.append(f'{", ".join(job.fast)} for cuda_graph')
    return '; '.join(words)


def command_line(prepared: Prepared) -> str:
    """The command that makes the bundle again, without folders."""
    job, config = prepared.job, prepared.config
    base = prepared.base
    weights = (
        f'--checkpoint {job.checkpoint.resolve().name}'
        if job.checkpoint
        else f'--random-weights {job.seed}'
    )
    backends = ['onnxruntime'] * bool(job.precisions) + ['cuda_graph'] * bool(job.fast)
    precisions = tuple(dict.fromkeys((*job.precisions, *job.fast)))
    words = [f'vla-trt export --size {job.size} {weights} --robot {job.robot.name}']
    for option, value, usual in (
        ('views', config.views, base.views),
        ('steps', config.num_steps, base.num_steps),
        ('buckets', config.prompt_buckets, base.prompt_buckets),
        ('backend', backends, ['onnxruntime']),
        ('precision', precisions, ('fp32',) if job.size == 'nano' else ('bf16',)),
    ):
        if value != usual:
            words.append(f'--{option} {",".join(map(str, value))}')
    if job.half:
        words.append('--store fp16')
    if job.horizon:
        words.append(f'--horizon {job.horizon}')
    if job.prompt_state:
        words.append(f'--state {job.prompt_state}')
    if job.actions:
        words.append(f'--actions {job.actions}')
    return ' '.join([*words, f'--out {job.out.resolve().name}'])
