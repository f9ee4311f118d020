"""What stands between Hydra and the rest: instantiation, resolvers, and errors in plain words."""

from rlhf_lightning.hydra_support.errors import explain
from rlhf_lightning.hydra_support.instantiate import instantiate, plain, register_resolvers

__all__ = ["explain", "instantiate", "plain", "register_resolvers"]
