"""Puts a running simulation onto a task: scene and prompt together, the arm held in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from vla_trt_ros.errors import VlaError
from vla_trt_ros.messages import stamp_ns
from vla_trt_ros.nodes.monitor import Monitor
from vla_trt_ros.srv import SetPrompt

_PATIENCE = 15.0  # seconds for an answer: a switch of task loads a scene


class Director:
    """Begins episodes on the nodes that ``monitor`` watches; use it while the monitor is open.

    ``check`` is called while it waits, and may raise what should end the wait.
    """

    def __init__(self, monitor: Monitor, check: Callable[[], None] = lambda: None) -> None:
        self._monitor = monitor
        self._check = check
        self._enable = monitor.client(SetBool, 'command/enable')
        self._scene = monitor.client(SetParametersAtomically, 'sim/set_parameters_atomically')
        self._prompt = monitor.client(SetPrompt, 'policy/set_prompt')

    def begin(self, task: str, seed: int, prompt: str) -> None:
        """Show the scene of ``task`` on ``seed``, tell the policy ``prompt``, let the arm move.

        The arm is braked first and stays where the new scene has it until a chunk is there that
        was made for this prompt, from pictures of this scene. VlaError: a node does not answer,
        or refuses, in its own words.
        """
        self.hold()
        scene = [Parameter('task', value=task), Parameter('seed', value=seed)]
        self._set_scene([p.to_parameter_msg() for p in scene])
        told = self._call(self._prompt, SetPrompt.Request(prompt=prompt), 'policy/set_prompt')
        if not told.accepted:
            raise VlaError(f'the policy refuses prompt {prompt!r}: {told.message}')
        begun_ns = self._monitor.now_ns()

        def seen() -> bool:
            chunk = self._monitor.chunk
            return (
                chunk is not None
                and chunk.prompt_hash == told.prompt_hash
                and stamp_ns(chunk.observation_stamp) > begun_ns
            )

        self._wait(seen, f'a chunk for {prompt!r}')
        self._wait(lambda: self._monitor.success is False, 'sim/success of the new episode')
        self._move(True)

    def hold(self) -> None:
        """Brake the arm and let no chunk move it until `begin`."""
        self._move(False)

    def _move(self, on: bool) -> None:
        answer = self._call(self._enable, SetBool.Request(data=on), 'command/enable')
        if not answer.success:
            raise VlaError(f'the command node refuses: {answer.message}')

    def _set_scene(self, parameters: list[ParameterMsg]) -> None:
        request = SetParametersAtomically.Request(parameters=parameters)
        result = self._call(self._scene, request, 'the simulator').result
        if not result.successful:
            raise VlaError(f'the simulator refuses: {result.reason}')

    def _call(self, client: Any, request: Any, name: str) -> Any:
        self._wait(client.service_is_ready, f'{name} to be there')
        future = client.call_async(request)
        self._wait(future.done, f'an answer of {name}')
        return future.result()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def checked() -> bool:
            self._check()
            return condition()

        if not self._monitor.wait_for(checked, _PATIENCE):
            raise VlaError(f'waited {_PATIENCE:.0f} s for {what}.')
