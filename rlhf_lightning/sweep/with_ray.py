"""Jobs on a Ray cluster."""

from hydra_plugins.hydra_ray_launcher import ray_launcher

from rlhf_lightning.sweep.launching import OneDevice


class RayLauncher(OneDevice, ray_launcher.RayLauncher):
    """Ray's, for jobs of one device."""
