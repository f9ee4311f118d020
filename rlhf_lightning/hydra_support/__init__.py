"""What stands between Hydra and the rest: instantiation, resolvers, and errors in plain words."""

from rlhf_lightning.hydra_support.errors import explain
from rlhf_lightning.hydra_support.instantiate import instantiate, plain, register_resolvers
from rlhf_lightning.hydra_support.signature import check_arguments, check_call, check_value

__all__ = ["check_arguments", "check_call", "check_value", "explain", "instantiate", "plain", "register_resolvers"]
