"""One tick: newest frames and joint states in, one chunk in the robot's joints out.

This is the data's way without ROS. The policy node feeds it from topics, an evaluation from a bag;
both call the same four methods, so both see the same chunks.
"""

from __future__ import annotations

import threading
import time
import uuid
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
from vla_trt_ros.policies.base import Policy, check_num_steps


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
    fresh: bool
    """Nothing to blend with: first chunk since activation or since the prompt changed."""


class Pipeline:
    """Owns the input slots and the policy; knows no topics and no threads.

    Inputs are offered from any thread; `tick` is called from one. Raises ConfigError where the
    policy and the robot do not fit each other.
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
        self._request = _Request('', settings.num_steps, fresh=True)
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
        with self._lock:
            self._request = replace(self._request, fresh=True)

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
            fresh = self._request.fresh or prompt != self._request.prompt
            self._request = replace(self._request, prompt=prompt, fresh=fresh)
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
        try:
            result = self.policy.infer(observation, num_steps=request.num_steps)
        except DeviceLost as error:
            self._lost = str(error)
            raise
        actions, clamped = self._to_robot(result, state)
        chunk = self._chunk(actions, exposed_ns, request, clamped)
        inference_ms = (time.perf_counter() - begin) * 1e3
        timing = self._timing(chunk, frames, newest_state, result, now_ns, inference_ms)
        with self._lock:
            if self._request is request:
                self._request = replace(request, fresh=False)
        return TickResult(chunk, timing)

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
        flags = ChunkFlag.FIRST if request.fresh else ChunkFlag.NONE
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
        frames: dict[str, CameraFrame],
        newest_state: JointSample,
        result: PolicyResult,
        now_ns: int,
        inference_ms: float,
    ) -> ChunkTiming:
        stats = self.frames.stats()
        stamps = [f.stamp_ns for f in frames.values()]
        return ChunkTiming(
            chunk_id=chunk.chunk_id,
            num_steps=chunk.num_steps,
            cameras=tuple(frames),
            image_age_ms=tuple((now_ns - f.stamp_ns) / 1e6 for f in frames.values()),
            transport_ms=tuple((f.receive_ns - f.stamp_ns) / 1e6 for f in frames.values()),
            frames_received=tuple(stats[c].received for c in frames),
            frames_dropped=tuple(stats[c].dropped for c in frames),
            frames_rejected=tuple(stats[c].rejected for c in frames),
            camera_skew_ms=(max(stamps) - min(stamps)) / 1e6,
            state_age_ms=(now_ns - newest_state.stamp_ns) / 1e6,
            wait_ms=(now_ns - max(f.receive_ns for f in frames.values())) / 1e6,
            stages=result.times,
            inference_ms=inference_ms,
            deadline_ms=self.settings.deadline_ms,
            consumed_steps=round(inference_ms * 1e6) // chunk.step_ns,
            uploads=result.uploads,
            upload_bytes=result.upload_bytes,
            device_memory_mib=result.device_memory_mib,
        )
