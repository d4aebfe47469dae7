"""Camera images, joint states and a prompt in; action chunks, their timing and status out.

A lifecycle node: configure loads the bundle and warms it up, activate starts the inference thread.
Where the GPU is lost to the process, the node goes through error processing to finalized, and its
status goes on saying so: it must be started again.
"""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import replace

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import String

from vla_trt_ros.config import NUM_STEPS
from vla_trt_ros.datatypes import ChunkFlag, Counters
from vla_trt_ros.errors import VlaError
from vla_trt_ros.freshness import Freshness
from vla_trt_ros.loading import load_pipeline
from vla_trt_ros.msg import ActionChunk, PolicyInfo, PolicyStatus, PolicyTiming
from vla_trt_ros.nodes import policy_report
from vla_trt_ros.nodes.inference import InferenceThread
from vla_trt_ros.nodes.inputs import PolicyInputs
from vla_trt_ros.nodes.params import Param, declare, on_change
from vla_trt_ros.nodes.publish import (
    COMMAND_QOS,
    EVENT_QOS,
    LATCHED_QOS,
    TELEMETRY_QOS,
    chunk_to_msg,
    timing_to_msg,
)
from vla_trt_ros.nodes.run import autostart, run_node
from vla_trt_ros.nodes.shared_frames import SharedFrames
from vla_trt_ros.pipeline import Pipeline, TickResult
from vla_trt_ros.policies.base import check_num_steps
from vla_trt_ros.srv import SetPrompt

PARAMS = (
    Param('robot', 'metaworld', 'robot file, a name in config/robots or a path'),
    Param('platform', 'cpu', 'platform file, a name in config/platforms or a path'),
    Param('policy', 'pi05', 'policy file, a name in config/policies or a path'),
    Param('bundle', '', 'engine bundle, a name or a path; empty: as the policy file says'),
    Param('cameras', '', "topics in place of the robot file's, as base=/a/image,wrist=/b/image"),
    Param('autostart', True, 'configure and activate at start, without a lifecycle manager'),
    Param('prompt', '', "the task in words; empty at start: the policy file's", live=True),
    Param('num_steps', 10, 'denoise steps of the next chunk', choices=NUM_STEPS, live=True),
    Param(
        'overlap',
        False,
        'begin a chunk while the steps of the one before run: more chunks, each takes longer; '
        'every stage on cuda_graph',
    ),
    Param('dry_run', False, 'mark chunks DRY_RUN: the command node sends none of them', live=True),
)


class PolicyNode(LifecycleNode):
    """Plumbing around a `Pipeline` and its `InferenceThread`.

    ``shared``: where the other nodes of this process find its camera slots.
    """

    def __init__(self, shared: SharedFrames | None = None) -> None:
        super().__init__('policy')
        self._shared = shared or SharedFrames()
        self.params = declare(self, PARAMS)
        on_change(self, self._check_live, self._apply_live)
        self._pipeline: Pipeline | None = None
        self._inference: InferenceThread | None = None
        self._inputs: PolicyInputs | None = None
        self._publish_ms = 0.0
        self._prompt_tokens = 0
        self.counters = Counters()
        self._undo: list = []
        if self.params['autostart']:
            autostart(self)

    # Lifecycle ---------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load everything; FAILURE, with the reason in the log, where anything does not fit."""
        begin = time.monotonic()
        try:
            self._pipeline = self._load()
        except VlaError as error:
            self.get_logger().fatal(str(error))
            return TransitionCallbackReturn.FAILURE
        self._inference = InferenceThread(
            self._pipeline, self._now_ns, self._publish_result, self._on_state
        )
        self._inputs = PolicyInputs(self, self._pipeline, self.counters)
        self._shared.frames = self._pipeline.frames
        self._connect()
        self._info.publish(policy_report.info_msg(self._now_ns(), self._pipeline))
        self._publish_status()
        # What is loaded stays: a collection must not go through it all between two frames.
        gc.collect()
        gc.freeze()
        bundle, platform = self._pipeline.policy.bundle, self._pipeline.platform
        self.get_logger().info(
            f'bundle {bundle.name} on platform {platform.name} loaded and warm in '
            f'{time.monotonic() - begin:.1f} s, prompt {self._pipeline.prompt!r}'
        )
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the inference thread with empty slots."""
        result = super().on_activate(state)  # publishers first: the thread may be quick
        self._pipeline.reset()
        self._inputs.listening = True
        self._inference.start()
        self._publish_status()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the inference thread; the command node sees no more chunks and holds. ERROR where
        the GPU is lost.
        """
        self._halt()
        self._publish_status()
        result = super().on_deactivate(state)
        return TransitionCallbackReturn.ERROR if self._pipeline.lost else result

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back: unconfigured, or finalized where another configure cannot help."""
        lost = self._pipeline.lost if self._pipeline else ''
        self._release()
        if not lost:
            return TransitionCallbackReturn.SUCCESS
        self._say_lost(lost)
        return TransitionCallbackReturn.FAILURE

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give engines, subscriptions and publishers back."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The same from any state."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Stop the thread before its publishers go."""
        self._release()
        super().destroy_node()

    def _load(self) -> Pipeline:
        names = ('robot', 'platform', 'policy', 'bundle', 'cameras', 'num_steps', 'prompt')
        names += ('overlap',)
        return load_pipeline(**{name: self.get_parameter(name).value for name in names})

    def _connect(self) -> None:
        lifecycle, plain = self.create_lifecycle_publisher, self.create_publisher
        self._chunks = lifecycle(ActionChunk, 'action_chunk', COMMAND_QOS)
        self._timing = lifecycle(PolicyTiming, '~/timing', TELEMETRY_QOS)
        self._status = plain(PolicyStatus, '~/status', LATCHED_QOS)
        self._info = plain(PolicyInfo, '~/info', LATCHED_QOS)
        self._diagnostics = plain(DiagnosticArray, '/diagnostics', EVENT_QOS)
        self._undo = [
            (self.destroy_lifecycle_publisher, self._chunks),
            (self.destroy_lifecycle_publisher, self._timing),
            *((self.destroy_publisher, p) for p in (self._status, self._info, self._diagnostics)),
        ]
        prompt = self.create_subscription(String, '~/prompt', self._on_prompt, EVENT_QOS)
        service = self.create_service(SetPrompt, '~/set_prompt', self._on_set_prompt)
        timer = self.create_timer(1.0, self._every_second)
        self._undo += [
            (self.destroy_subscription, prompt),
            (self.destroy_service, service),
            (self.destroy_timer, timer),
        ]

    def _halt(self) -> None:
        if self._inference is not None:
            self._inputs.listening = False
            self._inference.stop()

    def _release(self) -> None:
        self._halt()
        self._shared.frames = None
        for destroy, thing in reversed(self._undo):
            destroy(thing)
        self._undo = []
        if self._pipeline is not None:
            self._inputs.close()
            try:
                self._pipeline.policy.close()
            except VlaError as error:
                self.get_logger().error(f'closing the policy: {error}')
        self._pipeline = self._inference = self._inputs = None
        gc.unfreeze()

    # Prompt and step count ---------------------------------------------------------------------

    def _on_prompt(self, msg: String) -> None:
        result = self._set('prompt', msg.data)
        if not result.successful:
            self.counters.add('prompt_rejected')
            self.get_logger().warning(f'prompt not changed: {result.reason}')

    def _on_set_prompt(self, request, response):
        result = self._set('prompt', request.prompt)
        response.accepted = result.successful
        response.message = result.reason or f'{self._prompt_tokens} tokens'
        response.prompt_hash = self._status_now().prompt_hash
        return response

    def _set(self, name: str, value: object):
        return self.set_parameters([Parameter(name, value=value)])[0]

    def _check_live(self, changed: dict) -> None:
        if self._pipeline is None:
            return
        if 'prompt' in changed:
            self._prompt_tokens = self._pipeline.policy.check_prompt(changed['prompt'])
        if 'num_steps' in changed:
            check_num_steps(changed['num_steps'], self._pipeline.policy.num_steps_available)

    def _apply_live(self, changed: dict) -> None:
        if self._pipeline is None:
            return
        if 'prompt' in changed:
            self._pipeline.set_prompt(changed['prompt'])
            self.get_logger().info(f'prompt is now {changed["prompt"]!r}')
        if 'num_steps' in changed:
            self._pipeline.set_num_steps(changed['num_steps'])
            self.get_logger().info(f'num_steps is now {changed["num_steps"]}')
        self._publish_status()

    # Outputs -----------------------------------------------------------------------------------

    def _publish_result(self, result: TickResult) -> None:
        chunk, timing = result.chunk, result.timing
        if timing.inference_ms > timing.deadline_ms:
            chunk = replace(chunk, flags=chunk.flags | ChunkFlag.LATE)
            self.counters.add('deadline_missed')
        if self.get_parameter('dry_run').value:
            chunk = replace(chunk, flags=chunk.flags | ChunkFlag.DRY_RUN)
        publish_ns = self._now_ns()
        over = (publish_ns - chunk.start_ns) // chunk.step_ns
        chunk = replace(chunk, valid_from=max(0, min(over, chunk.horizon)))
        begin = time.perf_counter()
        self._chunks.publish(chunk_to_msg(chunk))
        publish_ms, self._publish_ms = self._publish_ms, (time.perf_counter() - begin) * 1e3
        self._timing.publish(
            timing_to_msg(
                timing,
                observation_ns=chunk.observation_ns,
                publish_ns=publish_ns,
                publish_ms=publish_ms,
            )
        )

    def _on_state(self, state: Freshness) -> None:
        if state.ok:
            self.get_logger().info('running')
        else:
            self.get_logger().warning(f'no chunks: {state.text}', throttle_duration_sec=5.0)
        self._publish_status()

    def _every_second(self) -> None:
        if self._pipeline.lost and self._inputs.listening:
            self.get_logger().fatal(f'no more chunks: {self._pipeline.lost}')
            self.trigger_deactivate()
            return
        self._publish_status()
        inference = self._inference
        self._diagnostics.publish(
            policy_report.policy_diagnostics(
                self._now_ns(), self.get_name(), self._pipeline, inference, self.counters
            )
        )

    def _say_lost(self, why: str) -> None:
        """Status once a second, from a node that has nothing else left."""
        status = self.create_publisher(PolicyStatus, '~/status', LATCHED_QOS)

        def publish() -> None:
            status.publish(policy_report.lost_msg(self._now_ns(), why))

        publish()
        self._undo = [
            (self.destroy_publisher, status),
            (self.destroy_timer, self.create_timer(1.0, publish)),
        ]

    def _publish_status(self) -> None:
        if self._pipeline is not None:
            self._status.publish(self._status_now())

    def _status_now(self) -> PolicyStatus:
        return policy_report.status_msg(
            self._now_ns(),
            self._pipeline,
            self._inference,
            active=self._inputs.listening,
            dry_run=self.get_parameter('dry_run').value,
        )

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def main(args: list[str] | None = None) -> int:
    """Entry point of lib/vla_trt_ros/policy_node."""
    return run_node(PolicyNode, args)


if __name__ == '__main__':
    sys.exit(main())
