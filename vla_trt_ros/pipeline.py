"""One tick: newest frames and joint states in, one chunk in the robot's joints out.

This is the data's way without ROS. The policy node feeds it from topics, an evaluation from a bag;
both call the same four methods, so both see the same chunks.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vla_trt_ros.actions.layout import JointLayout
from vla_trt_ros.camera.latest import LatestFrames
from vla_trt_ros.config import PlatformConfig, PolicyConfig, RobotConfig
from vla_trt_ros.datatypes import (
    ActionChunk,
    ActionSpace,
    CameraFrame,
    ChunkFlag,
    ChunkTiming,
    Float32Array,
    JointSample,
    Observation,
    PolicyResult,
    Reason,
    prompt_hash,
)
from vla_trt_ros.errors import BackendError, BadAction, BadImage, BadState, DeviceLost
from vla_trt_ros.freshness import Freshness
from vla_trt_ros.joints import JointHistory
from vla_trt_ros.policies.base import Pending, Policy, check_num_steps


@dataclass(frozen=True, slots=True)
class TickResult:
    """A chunk, and where its time went."""

    chunk: ActionChunk
    timing: ChunkTiming


@dataclass(frozen=True, slots=True)
class _Request:
    """What the next chunk is made with; replaced whole, so that a tick sees one state of it."""

    prompt: str
    num_steps: int
    task: int
    """Counts changes of the prompt: the first chunk of each has nothing to blend with."""


@dataclass(frozen=True, slots=True)
class PendingTick:
    """A tick whose chunk is being made: what `Pipeline.finish` needs. Frames are let go of."""

    pending: Pending
    request: _Request
    stamps: dict[str, tuple[int, int]]
    """Camera to exposure and arrival, ns."""
    state: Float32Array
    newest_state_ns: int
    now_ns: int
    begin: float


class Pipeline:
    """Owns the input slots and the policy; knows no topics and no threads.

    Inputs are offered from any thread; `tick` is called from one, or `submit` from one and
    `finish` from one. Raises ConfigError where the policy and the robot do not fit each other.
    """

    def __init__(
        self,
        policy: Policy,
        robot: RobotConfig,
        platform: PlatformConfig,
        settings: PolicyConfig,
    ) -> None:
        layout = policy.bundle.layout
        policy.bundle.check_robot(robot)
        cameras = {view: robot.cameras[view] for view in policy.views}
        self.policy = policy
        self.robot = robot
        self.platform = platform
        self.settings = settings
        self.frames = LatestFrames(cameras, robot.max_camera_skew_ms)
        self.joints = JointHistory(robot.joint_states_topic, robot.safety.max_state_age_ms)
        self._layout = JointLayout(
            robot,
            state_names=layout.state,
            action_names=tuple(a.joint for a in layout.actions),
            action_kinds=tuple(a.kind for a in layout.actions),
        )
        self._lower = np.array([j.lower for j in robot.joints], np.float32)
        self._upper = np.array([j.upper for j in robot.joints], np.float32)
        self._lock = threading.Lock()
        self._lost = ''
        self._request = _Request('', settings.num_steps, task=0)
        self.set_num_steps(settings.num_steps)
        self.reset()

    def reset(self) -> None:
        """A new activation: empty slots, chunk ids from 0, a new run id, the first noise again."""
        self.frames.reset()
        self.joints.reset()
        self.policy.reseed(self.settings.seed)
        self._run_id = uuid.uuid4().bytes
        self._chunk_id = 0
        self._first_start_ns = 0
        self._last_start_ns = 0
        self._task_done = -1

    @property
    def lost(self) -> str:
        """Why no tick of this process will succeed any more, as the GPU's error says; else ''."""
        return self._lost

    @property
    def prompt(self) -> str:
        """The prompt of the next chunk."""
        return self._request.prompt

    @property
    def num_steps(self) -> int:
        """Denoise steps of the next chunk."""
        return self._request.num_steps

    def set_prompt(self, prompt: str) -> int:
        """Use ``prompt`` from the next chunk on; its tokens. BadPrompt leaves the old one."""
        tokens = self.policy.check_prompt(prompt)
        with self._lock:
            task = self._request.task + int(prompt != self._request.prompt)
            self._request = replace(self._request, prompt=prompt, task=task)
        return tokens

    def set_num_steps(self, num_steps: int) -> None:
        """Use ``num_steps`` from the next chunk on. ConfigError for one that the bundle lacks."""
        check_num_steps(num_steps, self.policy.num_steps_available)
        with self._lock:
            self._request = replace(self._request, num_steps=num_steps)

    def offer_image(self, camera: str, frame: CameraFrame) -> None:
        """The newest frame of a view, brought to where the policy reads it; counted and told as
        malformed where that fails.
        """
        try:
            ready = self.policy.prepare_frame(camera, frame)
        except DeviceLost as error:
            self._lost = str(error)
            self.frames.wake()
        except (BadImage, BackendError) as error:
            self.frames.reject(camera, str(error))
        else:
            self.frames.offer(camera, ready)

    def offer_joints(self, sample: JointSample) -> None:
        """The newest joint states; counted and told as BAD_STATE where they cannot be used: at
        once for NaN and doubled names, once the last good ones are too old for missing joints.
        """
        try:
            self._layout.to_model(sample)
        except BadState as error:
            complete = set(self.policy.bundle.layout.state) <= set(sample.names)
            self.joints.reject(str(error), at_once=complete)
            return
        self.joints.offer(sample)

    def readiness(self, now_ns: int) -> Freshness:
        """Whether a tick at ``now_ns`` makes sense; the first reason against it otherwise."""
        if self._lost:
            return Freshness(Reason.POLICY_ERROR, self._lost)
        if not self._request.prompt:
            return Freshness(
                Reason.NO_PROMPT, 'no prompt: set one by topic, parameter or service.'
            )
        cameras = self.frames.freshness(now_ns)
        return cameras if not cameras.ok else self.joints.freshness(now_ns)

    def tick(self, now_ns: int) -> TickResult:
        """One chunk from what is newest at ``now_ns``; call it only where `readiness` is ok.

        Raises BadInput for an image that does not decode, joint states without the state, or a
        policy that gave NaN or Inf; BackendError where an engine fails. The pipeline stays usable,
        unless `lost` says why not.
        """
        return self.finish(self.submit(now_ns))

    def submit(self, now_ns: int) -> PendingTick:
        """Begin a tick. Up to the policy's `places` ticks may be begun and not finished."""
        begin = time.perf_counter()
        with self._lock:
            request = self._request
        frames = self.frames.take()
        exposed_ns = min(f.stamp_ns for f in frames.values())
        sample = self.joints.at(exposed_ns)
        if sample is None:
            raise BadState(f'joint states: nothing yet on {self.robot.joint_states_topic}.')
        state = self._layout.to_model(sample)
        newest_state = self.joints.newest() or sample
        observation = Observation(frames, state, request.prompt)
        with self._noticing_loss():
            pending = self.policy.submit(observation, num_steps=request.num_steps)
        stamps = {name: (f.stamp_ns, f.receive_ns) for name, f in frames.items()}
        return PendingTick(pending, request, stamps, state, newest_state.stamp_ns, now_ns, begin)

    def finish(self, tick: PendingTick) -> TickResult:
        """The chunk of a tick that was begun, in the order of `submit`; errors as `tick`."""
        with self._noticing_loss():
            result = tick.pending.result()
        actions, clamped = self._to_robot(result, tick.state)
        exposed_ns = min(stamp for stamp, _ in tick.stamps.values())
        chunk = self._chunk(actions, exposed_ns, tick.request, clamped)
        inference_ms = (time.perf_counter() - tick.begin) * 1e3
        timing = self._timing(chunk, tick, result, inference_ms)
        self._task_done = tick.request.task
        return TickResult(chunk, timing)

    def wait_turn(self) -> None:
        """Until what is submitted next would begin at once. BackendError where the GPU failed."""
        with self._noticing_loss():
            self.policy.wait_turn()

    @contextlib.contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        try:
            yield
        except DeviceLost as error:
            self._lost = str(error)
            raise

    def _to_robot(self, result: PolicyResult, state: Float32Array) -> tuple[Float32Array, int]:
        if not np.isfinite(result.actions).all():
            raise BadAction('the policy gave NaN or Inf: check the engines with vla-trt bench.')
        actions = self._layout.to_robot(result.actions, state)
        inside = np.clip(actions, self._lower, self._upper)
        return inside, int(np.count_nonzero(inside != actions))

    def _chunk(
        self, actions: Float32Array, start_ns: int, request: _Request, clamped: int
    ) -> ActionChunk:
        step_ns = self.robot.step_ns
        if not self._chunk_id:
            self._first_start_ns = self._last_start_ns = start_ns
        # Rows that are over before the next chunk comes, if chunks keep coming as they did.
        gap_steps = max(1, round((start_ns - self._last_start_ns) / step_ns))
        flags = ChunkFlag.NONE if request.task == self._task_done else ChunkFlag.FIRST
        flags |= ChunkFlag.CLAMPED if clamped else ChunkFlag.NONE
        chunk = ActionChunk(
            start_ns=start_ns,
            observation_ns=start_ns,
            step_ns=step_ns,
            names=self.robot.joint_names,
            actions=actions,
            action_space=ActionSpace[self.robot.action_space.upper()],
            chunk_id=self._chunk_id,
            step_index0=max(0, (start_ns - self._first_start_ns) // step_ns),
            execute_count=min(gap_steps, len(actions)),
            num_steps=request.num_steps,
            prompt_hash=prompt_hash(request.prompt),
            policy_hash=self.policy.bundle.sha256,
            run_id=self._run_id,
            flags=flags,
            clamped=clamped,
        )
        self._chunk_id += 1
        self._last_start_ns = start_ns
        return chunk

    def _timing(
        self,
        chunk: ActionChunk,
        tick: PendingTick,
        result: PolicyResult,
        inference_ms: float,
    ) -> ChunkTiming:
        stats = self.frames.stats()
        now_ns, cameras = tick.now_ns, tick.stamps
        exposed, received = zip(*cameras.values(), strict=True)
        return ChunkTiming(
            chunk_id=chunk.chunk_id,
            num_steps=chunk.num_steps,
            cameras=tuple(cameras),
            image_age_ms=tuple((now_ns - stamp) / 1e6 for stamp in exposed),
            transport_ms=tuple((came - stamp) / 1e6 for stamp, came in cameras.values()),
            frames_received=tuple(stats[c].received for c in cameras),
            frames_dropped=tuple(stats[c].dropped for c in cameras),
            frames_rejected=tuple(stats[c].rejected for c in cameras),
            camera_skew_ms=(max(exposed) - min(exposed)) / 1e6,
            state_age_ms=(now_ns - tick.newest_state_ns) / 1e6,
            wait_ms=(now_ns - max(received)) / 1e6,
            stages=result.times,
            inference_ms=inference_ms,
            deadline_ms=self.settings.deadline_ms,
            consumed_steps=round(inference_ms * 1e6) // chunk.step_ns,
            uploads=result.uploads,
            upload_bytes=result.upload_bytes,
            device_memory_mib=result.device_memory_mib,
        )
