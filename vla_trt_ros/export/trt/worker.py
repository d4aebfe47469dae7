"""A build in a process of its own: its memory is all given back, and when the system kills it for
memory, or the library crashes, the command that started it lives to tell.

``python -m vla_trt_ros.export.trt.worker JOB``: JOB is JSON, the answer a line of JSON on stdout.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vla_trt_ros.backends.trt_module import FLAVOURS, TensorRT, find_tensorrt
from vla_trt_ros.errors import BackendError, BundleError, VlaError
from vla_trt_ros.export.trt.builder import BuildFacts, BuildOptions, build_plan, refusal
from vla_trt_ros.export.trt.layer_log import LayerLog

_ANSWER = 'vla-trt-build-answer '


def build_apart(onnx: Path, plan: Path, options: BuildOptions, trt: TensorRT) -> BuildFacts:
    """`build_plan` in a child process. BackendError as there, also when the child was killed;
    BundleError for a full disk.
    """
    job = {
        'onnx': str(onnx),
        'plan': str(plan),
        'flavour': trt.flavour,
        'options': asdict(options)
        | {'timing_cache': str(options.timing_cache) if options.timing_cache else None},
    }
    command = [sys.executable, '-m', __name__, json.dumps(job)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            out, err = child.communicate()
        except BaseException:
            child.kill()
            raise
    for line in out.splitlines():
        if line.startswith(_ANSWER):
            return _answered(json.loads(line.removeprefix(_ANSWER)))
    if child.returncode == -signal.SIGKILL:
        raise BackendError(refusal(options, trt, 'the system killed it: out of memory'))
    said = f'it ended with status {child.returncode}: {err.strip()[-500:]}'
    raise BackendError(refusal(options, trt, said))


def _answered(answer: dict[str, Any]) -> BuildFacts:
    if 'backend_error' in answer:
        raise BackendError(answer['backend_error'])
    if 'bundle_error' in answer:
        raise BundleError(answer['bundle_error'])
    facts = answer['facts']
    return BuildFacts(**(facts | {'log': LayerLog(**facts['log'])}))


def main(words: list[str]) -> int:
    """Do the job and print the answer."""
    job = json.loads(words[0])
    _first_to_be_killed()
    options = BuildOptions(**job['options'])
    if options.timing_cache is not None:
        options = replace(options, timing_cache=Path(options.timing_cache))
    (flavour,) = (f for f in FLAVOURS if f == job['flavour'])
    plan = Path(job['plan'])
    answer: dict[str, Any]
    try:
        facts = build_plan(Path(job['onnx']), plan, options, find_tensorrt(flavour))
        answer = {'facts': asdict(facts)}
    except OSError as error:
        answer = {
            'bundle_error': f'{plan} cannot be written ({error.strerror}); free space on its disk '
            'and run the command again: engines that are done are kept.'
        }
    except VlaError as error:
        answer = {'backend_error': str(error)}
    print(_ANSWER + json.dumps(answer), flush=True)
    return 0


def _first_to_be_killed() -> None:
    """When memory runs out, this process goes, not the rest of the machine."""
    with contextlib.suppress(OSError):  # not allowed here: then the system chooses
        Path('/proc/self/oom_score_adj').write_text('1000', encoding='ascii')


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
