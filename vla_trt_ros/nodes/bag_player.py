"""A bag over topics to a policy node that runs by itself, and its chunks back: what a replay in
process promises, held against the real thing.

On the fast clock a pair of frames is followed by nothing until its chunk is there; on the real one
everything goes out when it was recorded, and the node gets to what it gets to.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from vla_trt_ros.bundle import Bundle
from vla_trt_ros.camera.latest import LatestFrames
from vla_trt_ros.config import RobotConfig
from vla_trt_ros.datatypes import CameraFrame, ChunkTiming, Counters, State
from vla_trt_ros.errors import BackendError, BadInput
from vla_trt_ros.messages import chunk_from_msg, stamp_ns
from vla_trt_ros.msg import ActionChunk, PolicyStatus, PolicyTiming
from vla_trt_ros.nodes.publish import (
    COMMAND_QOS,
    EVENT_QOS,
    LATCHED_QOS,
    TELEMETRY_QOS,
    time_msg,
)
from vla_trt_ros.nodes.publish_inputs import image_msg, joints_msg
from vla_trt_ros.nodes.replay_messages import timing_from_msg
from vla_trt_ros.nodes.replay_node import PolicyProcess, own_topics
from vla_trt_ros.pipeline import TickResult
from vla_trt_ros.replay.drive import Event, Tick

_START = 60.0  # seconds for the node to load its engines and be found
_ANSWER = 10.0  # seconds for a chunk or a prompt, on the fast clock
_CLOCK = 0.005  # seconds between two ticks of the clock


class Player:
    """Publishes events as the messages that they were, and hears chunks and their timing."""

    def __init__(
        self,
        robot: RobotConfig,
        bundle: Bundle,
        process: PolicyProcess,
        *,
        views: tuple[str, ...],
        paced: bool,
        follow_prompts: bool,
    ) -> None:
        self._process = process
        self._views = views
        self._paced = paced
        self._follow = follow_prompts
        self._state_names = set(bundle.layout.state)
        self.counts = Counters()
        # What the node has in its slots, to know on the fast clock whether a chunk will come.
        cameras = {view: robot.cameras[view] for view in views}
        self._mirror = LatestFrames(cameras, robot.max_camera_skew_ms)
        self._joints_seen = False
        self._sent: deque[tuple[str, CameraFrame]] = deque(maxlen=32 * len(views))
        self._chunks: deque[tuple[int, Any]] = deque()
        self._timings: dict[int, ChunkTiming] = {}
        self._published: dict[int, int] = {}
        self._newest: ChunkTiming | None = None
        self._active = False
        self._prompt = self._told = ''
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node(
            'bag_player', namespace=process.namespace, context=self._context
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._connect(own_topics(robot))
        self._thread = threading.Thread(target=self._executor.spin)
        self._thread.start()

    def __enter__(self) -> Player:
        try:
            self._wait_for_node()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def run(self, events: Iterator[Event]) -> Iterator[tuple[Event | None, Tick | None]]:
        """Every event with a tick that has come by then; those that come later behind the last."""
        last: Event | None = None
        begin = time.monotonic()
        for event in events:
            if last is None:
                first_ns = event.time_ns
            if self._paced:
                self._wait_until(begin, first_ns, event.time_ns)
            else:
                self._tell_time(event.time_ns)
            expected = self._send(event)
            if expected and not self._paced:
                self._wait_for(lambda: self._chunks and self._chunks[-1][0] in self._timings)
            last = event
            yield event, self._next_tick()
        if last is not None:
            time.sleep(1.0 if self._paced else 0.0)
            while (tick := self._next_tick()) is not None:
                yield last, tick
        self._count_frames()
        yield None, None

    # Out ---------------------------------------------------------------------------------------

    def _connect(self, robot: RobotConfig) -> None:
        create, hear = self._node.create_publisher, self._node.create_subscription
        self._clock = create(Clock, 'clock', EVENT_QOS)
        self._joints = create(JointState, robot.joint_states_topic, EVENT_QOS)
        self._prompts = create(String, 'policy/prompt', EVENT_QOS)
        self._images = {
            view: create(
                CompressedImage if robot.cameras[view].compressed else Image,
                robot.cameras[view].topic,
                EVENT_QOS,
            )
            for view in self._views
        }
        self._ask = self._node.create_client(GetParameters, 'policy/get_parameters')
        hear(ActionChunk, 'action_chunk', self._on_chunk, COMMAND_QOS)
        hear(PolicyTiming, 'policy/timing', self._on_timing, TELEMETRY_QOS)
        hear(PolicyStatus, 'policy/status', self._on_status, LATCHED_QOS)

    def _wait_for_node(self) -> None:
        listened = (self._clock, self._joints, self._prompts, *self._images.values())
        end = time.monotonic() + _START
        while not (
            self._active
            and all(p.get_subscription_count() for p in listened)
            and self._ask.service_is_ready()
        ):
            self._process.check()
            if time.monotonic() > end:
                raise BackendError(f'the policy node did not start within {_START:.0f} s.')
            time.sleep(0.05)

    def _send(self, event: Event) -> bool:
        """Publish; True where a chunk of it must come."""
        try:
            payload = event.payload
        except BadInput:
            self.counts.add(f'bad_{event.kind}')
            return False
        if event.kind == 'joints':
            self._joints.publish(joints_msg(payload))
            self._joints_seen |= self._state_names <= set(payload.names)
            if not self._paced:
                self._settle()
        elif event.kind == 'prompt' and self._follow and payload != self._prompt:
            self._prompt = payload
            self._prompts.publish(String(data=payload))
            if not self._paced:
                self._wait_for(lambda: self._told == payload)
        elif event.kind == 'camera' and event.name in self._views:
            self._images[event.name].publish(image_msg(payload))
            self._sent.append((event.name, payload))
            if self._mirror.offer(event.name, payload) and self._mirror.wait_new(0.0):
                self._mirror.take()
                self.counts.add('pairs')
                return self._joints_seen and self._mirror.freshness(event.time_ns).ok
        return False

    def _settle(self) -> None:
        """Until the node has taken what was sent: it answers behind that. Its executor takes one
        message of each topic at a time, so that a picture could overtake queued joint states.
        """
        future = self._ask.call_async(GetParameters.Request())
        self._wait_for(future.done)

    def _wait_until(self, begin: float, first_ns: int, time_ns: int) -> None:
        """Until as much time has passed as when it was recorded; the clock goes on meanwhile."""
        while True:
            passed_ns = round((time.monotonic() - begin) * 1e9)
            self._tell_time(min(time_ns, first_ns + passed_ns))
            left = (time_ns - first_ns - passed_ns) / 1e9
            if left <= 0.0:
                return
            time.sleep(min(left, _CLOCK))

    def _tell_time(self, now_ns: int) -> None:
        self._clock.publish(Clock(clock=time_msg(now_ns)))

    # Back --------------------------------------------------------------------------------------

    def _on_chunk(self, msg: ActionChunk) -> None:
        self._chunks.append((int(msg.chunk_id), chunk_from_msg(msg)))

    def _on_timing(self, msg: PolicyTiming) -> None:
        self._published[int(msg.chunk_id)] = stamp_ns(msg.header.stamp)
        self._timings[int(msg.chunk_id)] = timing_from_msg(msg)

    def _on_status(self, msg: PolicyStatus) -> None:
        self._active = msg.state not in (State.UNKNOWN, State.INACTIVE)
        self._told = msg.prompt

    def _wait_for(self, answer: Callable[[], object]) -> None:
        end = time.monotonic() + _ANSWER
        while not answer():
            if time.monotonic() > end:
                self._process.check()
                self.counts.add('unanswered')
                return
            time.sleep(0.0005)

    def _next_tick(self) -> Tick | None:
        newest = max(self._timings, default=-1)
        while self._chunks and self._chunks[0][0] not in self._timings:
            if self._chunks[0][0] > newest:
                return None
            self._chunks.popleft()  # its timing was lost: it is best effort
            self.counts.add('timing_lost')
        if not self._chunks:
            return None
        number, chunk = self._chunks.popleft()
        timing = self._timings.pop(number)
        published_ns = self._published.pop(number)
        self._newest = timing
        self.counts.add('ticks')
        self.counts.add('late', int(timing.inference_ms > timing.deadline_ms))
        frames = self._frames_of(chunk.observation_ns)
        ready_ns = published_ns if self._paced else chunk.start_ns
        return Tick(
            number, TickResult(chunk, timing), frames, self._prompt, published_ns, ready_ns
        )

    def _frames_of(self, observation_ns: int) -> dict[str, CameraFrame]:
        """The pair whose oldest exposure it is: of each view the first frame from then on."""
        frames: dict[str, CameraFrame] = {}
        for view, frame in self._sent:
            if frame.stamp_ns >= observation_ns:
                frames.setdefault(view, frame)
        return frames

    def _count_frames(self) -> None:
        newest = self._newest
        if newest is not None:
            rejected = sum(newest.frames_rejected)
            self.counts.add('frames_sent', sum(newest.frames_received) + rejected)
            self.counts.add('frames_dropped', sum(newest.frames_dropped))
            self.counts.add('frames_rejected', rejected)

    def _close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self._node.destroy_node()
        self._context.try_shutdown()
