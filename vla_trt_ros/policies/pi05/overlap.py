"""Two graphs a chunk instead of one, so that two chunks can be in the making.

`encode` is vision and prefix, `decode` the denoise steps; each has a stream. Encode of the next
chunk begins when encode of this one is done, beside this one's decode:

    encode stream   | pixels 1, encode 1 | pixels 2, encode 2 | pixels 3, encode 3 |
    decode stream                        | decode 1 |         | decode 2 |

Pixels, image tokens and latents are one set: their streams keep order. Keys and values, and what
the host writes and reads, are two (`Engines.beside`), taken in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from vla_trt_ros.backends.captured_chain import CapturedChain
from vla_trt_ros.gpu.cuda import Event, Stream
from vla_trt_ros.policies.pi05.chains import Engines


class TwoGraphs:
    """`chains.Launchable` of two graphs, in order by events; ``decoded`` is the end of a launch.

    The events are those of one turn: both of its graphs read and write its keys and values.
    """

    def __init__(
        self, encode: CapturedChain, decode: CapturedChain, encoded: Event, decoded: Event
    ) -> None:
        self.encode, self.decode = encode, decode
        self._encoded, self._decoded = encoded, decoded

    @property
    def captured(self) -> bool:
        """Whether both are graphs."""
        return self.encode.captured and self.decode.captured

    def launch(self) -> None:
        """Queue both."""
        encode, decode = self.encode.stream.handle, self.decode.stream.handle
        self._decoded.hold(encode)  # until then this turn's keys and values are read
        self.encode.launch()
        self._encoded.record(encode)
        self._encoded.hold(decode)
        self.decode.launch()
        self._decoded.record(decode)

    def stage_ms(self) -> dict[str, float]:
        """As `chains.GpuChain.stage_ms`. What ran beside counts: a stage that shared the GPU with
        another chunk's took longer.
        """
        before, after = self.encode.stage_ms(), self.decode.stage_ms()
        both = {name: before[name] + after[name] for name in ('upload', 'download')}
        return before | after | both


def capture_overlapped(
    turns: Sequence[Engines],
    stack: ExitStack,
    encode: Stream,
    decode: Stream,
    report: Callable[[int, int], None] = lambda done, count: None,
) -> None:
    """Run and capture every chain of ``turns``; ``stack`` closes them. As `Engines.capture`."""
    count, done = sum(len(engines.keys()) for engines in turns), 0
    for engines in turns:
        encoded, decoded = Event(timing=False), Event(timing=False)
        encodes: dict[tuple[int, int], CapturedChain] = {}
        for key in engines.keys():  # noqa: SIM118 - a method of Engines
            report(done, count)
            *first, denoise = engines.stages(key)
            views, bucket, _ = key
            if (views, bucket) not in encodes:
                made = CapturedChain(first, on_gpu={'pixels'}, stream=encode)
                encodes[views, bucket] = stack.enter_context(made)
            steps = stack.enter_context(CapturedChain([denoise], stream=decode))
            both = TwoGraphs(encodes[views, bucket], steps, encoded, decoded)
            engines.add(key, both, decoded)
            done += 1
    report(count, count)
