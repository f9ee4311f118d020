"""Models: a Hugging Face name or folder in; a policy, classifier or reward model out."""

from rlhf_lightning.models.classifier import Classifier
from rlhf_lightning.models.generation import Completions, Sampling
from rlhf_lightning.models.loading import LoraSpec, ModelSpec, load_answerer
from rlhf_lightning.models.policy import Policy, PolicyOutput
from rlhf_lightning.models.reference import Reference
from rlhf_lightning.models.reward_model import RewardModel
from rlhf_lightning.models.tiny import TinySpec, make_tiny

__all__ = [
    "Classifier",
    "Completions",
    "LoraSpec",
    "ModelSpec",
    "Policy",
    "PolicyOutput",
    "Reference",
    "RewardModel",
    "Sampling",
    "TinySpec",
    "load_answerer",
    "make_tiny",
]
