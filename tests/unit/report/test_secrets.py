"""What is hidden in configs that are passed on."""

import pytest

from rlhf_lightning.report.secrets import HIDDEN, hide_secrets


@pytest.mark.parametrize(
    "name",
    ["api_key", "apikey", "API_KEY", "wandb_api_key", "password", "db.password", "passwd", "secret", "client-secret",
     "secret_key", "aws_secret_access_key", "token", "hub_token", "HF_TOKEN"],
)  # fmt: skip
def test_secrets_by_name(name: str) -> None:
    assert hide_secrets({"a": {name: "abc"}}) == {"a": {name: HIDDEN}}
    assert hide_secrets([f"+x.{name}=abc"]) == [f"+x.{name}={HIDDEN}"]
    assert hide_secrets([f"+x={{{name}: abc, n: 1}}"]) == [f"+x={{{name}: {HIDDEN}, n: 1}}"]
    assert hide_secrets([f"x={{n: 1,{name}: 'a b'}}"]) == [f"x={{n: 1,{name}: {HIDDEN}}}"]


@pytest.mark.parametrize(
    "config",
    [
        {"api_key": None, "pad_token": "<pad>", "eos_token": "</s>", "tokens": 5, "max_prompt_tokens": 96},
        {"keyboard": "qwerty", "key": "value", "tokenizer": "t", "secretary": "s", "trust_token": True},
        ["hub_token=null", "task.format.prompt='{document} token')", "ppo.kl_coef=0.05", "prompt={a: b}"],
        "api_key: abc",
        3,
    ],
)
def test_what_is_none(config: object) -> None:
    assert hide_secrets(config) == config
