"""Jobs side by side on this machine."""

from hydra_plugins.hydra_joblib_launcher import joblib_launcher

from rlhf_lightning.sweep.launching import OneDevice


class JoblibLauncher(OneDevice, joblib_launcher.JoblibLauncher):
    """Joblib's, for jobs of one device."""
