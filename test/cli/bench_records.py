"""A benchmark record that tests change."""

from vla_trt_ros.cli.bench_record import Record

RECORD = Record(
    hardware='a GPU',
    backend='cuda_graph',
    precision='fp8',
    views=3,
    prompt_tokens=196,
    horizon=50,
    steps=1,
    e2e_total_ms=20.0,
    vision_ms=4.0,
    prefix_ms=8.0,
    denoise_ms=2.5,
    hz=50.0,
    p50_ms=20.0,
    p99_ms=31.25,
    n=7,
    clock='frames in, actions out',
    bundle='big',
    camera='640x480',
    preprocess_ms=1.5,
    host='a processor x 2',
    prompt_bucket=200,
    stage_clock='events',
    engines_ms=14.5,
    per_step_ms=2.5,
)
