"""Policy families by the name in a bundle's manifest; a family is imported when it is used."""

from __future__ import annotations

from importlib import import_module

from vla_trt_ros.bundle import Bundle
from vla_trt_ros.config import PlatformConfig
from vla_trt_ros.errors import BundleError
from vla_trt_ros.policies.base import Policy

FAMILIES = {
    'pi05': 'vla_trt_ros.policies.pi05.policy:Pi05Policy',
}


def load_policy_from(
    bundle: Bundle, platform: PlatformConfig, *, seed: int = 0, overlap: bool = False
) -> Policy:
    """The policy in ``bundle``, each stage on the backend and precision that ``platform`` names.

    All engines are loaded and bound before it returns. ``seed`` is that of the noise; with
    ``overlap`` a chunk may begin while the steps of the one before run (`Policy.places`). Raises
    BundleError if the bundle lacks an engine or its contents disagree, BackendError if a backend
    is missing or refuses an engine, ConfigError where the platform cannot overlap.
    """
    try:
        module, _, name = FAMILIES[bundle.manifest.family].partition(':')
    except KeyError:
        raise BundleError(
            f'bundle {bundle.name!r} is of family {bundle.manifest.family!r}; this release knows '
            f'{", ".join(FAMILIES)}.'
        ) from None
    policy: Policy = getattr(import_module(module), name)(
        bundle, platform, seed=seed, overlap=overlap
    )
    return policy
