"""The one place that picks TensorRT: the full library, or TensorRT for RTX.

Both have the same Python API less a few names, which users test for with ``hasattr``. A plan made
by one is not read by the other, nor by another version.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from vla_trt_ros.errors import BackendError

Flavour = Literal['tensorrt', 'tensorrt_rtx']
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

_TITLES = {'tensorrt': 'TensorRT', 'tensorrt_rtx': 'TensorRT-RTX'}
_REMEDIES = {
    'tensorrt': 'JetPack has it, elsewhere pip install tensorrt',
    'tensorrt_rtx': "pip install 'vla_trt_ros[trt-build]'",
}


@dataclass(frozen=True, slots=True)
class TensorRT:
    """An imported TensorRT. ``logger`` is the only one of the process: TensorRT sends all
    messages to the first that it was given.
    """

    module: Any
    flavour: Flavour
    version: str
    logger: Any

    @property
    def title(self) -> str:
        """For people: 'TensorRT-RTX 1.7.1.116'."""
        return title(self.flavour, self.version)

    def last_errors(self) -> str:
        """What TensorRT complained of since the last call, on one line; '' for nothing."""
        text = '; '.join(self.logger.errors)
        self.logger.errors.clear()
        return text

    def listen(self, listener: Callable[[str], None] | None) -> None:
        """Hand every message, VERBOSE ones too, to ``listener``; None ends it."""
        self.logger.listener = listener


def title(flavour: str, version: str) -> str:
    """For people: 'TensorRT 10.13.3.9'."""
    return f'{_TITLES.get(flavour, flavour)} {version}'


def find_tensorrt(*flavours: Flavour) -> TensorRT:
    """The first of ``flavours`` (default: any, the full library first) that is installed.

    BackendError with the line that installs it when none is.
    """
    wanted = flavours or FLAVOURS
    why = []
    for flavour in wanted:
        try:
            return _load(flavour)
        except ImportError as error:  # noqa: PERF203  two at most
            why.append(f'{_TITLES[flavour]} ({error}): {_REMEDIES[flavour]}')
    raise BackendError(f'not installed: {"; or ".join(why)}.')


def installed() -> tuple[TensorRT, ...]:
    """Every flavour that this machine has."""
    found = []
    for flavour in FLAVOURS:
        try:
            found.append(_load(flavour))
        except ImportError:  # noqa: PERF203  two at most
            continue
    return tuple(found)


@cache
def _load(flavour: Flavour) -> TensorRT:
    module = _import(flavour)
    return TensorRT(module, flavour, str(module.__version__), _logger(module))


def _import(flavour: Flavour) -> Any:
    # The second way is for wheels without the meta package: there the libraries are loaded first.
    if flavour == 'tensorrt':
        try:
            import tensorrt
        except ModuleNotFoundError as error:
            if error.name != 'tensorrt':
                raise
            import tensorrt_libs  # noqa: F401, I001  it loads what the next line needs
            import tensorrt_bindings as tensorrt
        return tensorrt
    try:
        import tensorrt_rtx
    except ModuleNotFoundError as error:
        if error.name != 'tensorrt_rtx':
            raise
        import tensorrt_rtx_libs  # noqa: F401, I001  it loads what the next line needs
        import tensorrt_rtx_bindings as tensorrt_rtx
    return tensorrt_rtx


def _logger(module: Any) -> Any:
    severity = module.ILogger.Severity
    serious = (severity.INTERNAL_ERROR, severity.ERROR)

    class Logger(module.ILogger):  # type: ignore[misc]
        """Keeps the last errors and hands all messages to a listener, if there is one."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=8)
            self.listener: Callable[[str], None] | None = None

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT, from any of its threads."""
            if severity in serious:
                self.errors.append(message.strip())
            if self.listener is not None:
                self.listener(message)

    return Logger()
