"""The exceptions of this package. Each message names the thing, its value and the remedy."""


class VlaError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(VlaError):
    """A YAML file, a parameter or a combination of them is wrong. Raised before anything moves."""


class BundleError(VlaError):
    """A bundle is missing, truncated, altered, of another version, or made for another robot."""


class BackendError(VlaError):
    """A backend is not installed, cannot load an engine, or refused to run it."""


class NotCapturable(BackendError):
    """An engine runs, but not while a CUDA graph is captured."""


class DeviceLost(BackendError):
    """The GPU failed in a way that only a new process gets over: restart the node."""


class BadInput(VlaError):
    """A message cannot be used: it is counted and the robot holds; the node goes on."""


class BadImage(BadInput):
    """An image is malformed, of an unknown encoding, or does not match its own header."""


class UnknownEncoding(BadImage):
    """A raw image encoding that camera/encodings.py has no row for."""


class BadState(BadInput):
    """Joint states are missing joints, or hold NaN or Inf."""


class BadPrompt(BadInput):
    """A prompt is empty, too long for every bucket, or not text."""


class BadDetections(BadInput):
    """Detections hold NaN or Inf, or no stamp."""


class BadAction(BadInput):
    """A chunk holds NaN or Inf, or does not fit the robot."""
