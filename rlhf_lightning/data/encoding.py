"""From text to token ids and back, in one place, so that training, sampling and scoring see the same ids.

A prompt and its completion are always tokenised apart and joined as ids: what the model is trained on is then exactly
what it is given, and gives, when it generates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from rlhf_lightning.data.rows import Message, Prompt, Text
from rlhf_lightning.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["causal", "seq2seq", "encoder"]
"""What a model is: a decoder alone, an encoder with a decoder, or an encoder alone."""


class EncodedPrompt(NamedTuple):
    """Token ids of a prompt, and whether text had to be dropped to keep within the limit."""

    ids: list[int]
    truncated: bool


class EncodedPair(NamedTuple):
    """Token ids of prompt and completion together, as a reward model reads them; ``type_ids`` for BERT-like models."""

    ids: list[int]
    type_ids: list[int] | None


def transcript(text: Text) -> str:
    """A prompt as plain text: chat messages become the ``\\n\\nHuman: ...\\n\\nAssistant:`` form."""
    if isinstance(text, str):
        return text
    names = {"user": "Human", "assistant": "Assistant", "system": "System"}
    turns = "".join(f"\n\n{names.get(m['role'], m['role'])}: {m['content']}" for m in text)
    return turns if text and text[-1]["role"] == "assistant" else turns + "\n\nAssistant:"


def _shorten(prompt: Prompt, drop: int) -> Text:
    """The prompt with ``drop`` characters fewer, taken where they are missed least."""
    if not isinstance(prompt.text, str):
        return _shorten_chat(prompt.text, drop)
    if prompt.cut is None:
        return prompt.text[drop:]
    start, end = prompt.cut
    left = max(drop - (end - start), 0)  # the cuttable part is used up: go on from the beginning
    return (prompt.text[: max(start, end - drop)] + prompt.text[end:])[left:]


def _shorten_chat(messages: list[Message], drop: int) -> list[Message]:
    """A chat without its oldest turns; the system message stays, and the user still has the first word."""
    system = messages[:1] if messages[0]["role"] == "system" else []
    turns = messages[len(system) :]
    while len(turns) > 1 and (drop >= len(turns[0]["content"]) or turns[0]["role"] == "assistant"):
        drop = max(drop - len(turns[0]["content"]), 0)
        turns = turns[1:]
    kept = [{**message, "content": message["content"][drop:]} for message in turns[:1]]
    left = max(drop - len(turns[0]["content"]), 0) if turns else drop  # the turns are used up
    return [{**message, "content": message["content"][left:]} for message in system] + kept + turns[1:]


def _fit(prompt: Prompt, encode: Callable[[Text], list[int]], limit: int) -> EncodedPrompt:
    """Drop the fewest characters for which the encoding is at most ``limit`` ids long."""
    size = len(prompt.text) if isinstance(prompt.text, str) else sum(len(m["content"]) for m in prompt.text)
    low, high = 0, size  # dropping `low` is too little, dropping `high` is everything
    kept = 8 * max(limit, 1)  # of a text that is very much longer, most need never be encoded
    while kept < size and low == 0:
        if len(encode(_shorten(prompt, size - kept))) > limit:
            low = size - kept
        else:
            high = size - kept
        kept *= 2
    if low == 0:
        ids = encode(prompt.text)
        if len(ids) <= limit:
            return EncodedPrompt(ids, False)
    while high - low > 1:
        middle = (low + high) // 2
        if len(encode(_shorten(prompt, middle))) <= limit:
            high = middle
        else:
            low = middle
    ids = encode(_shorten(prompt, high))
    if len(ids) > limit:
        raise UserError(
            f"a limit of {limit} prompt tokens leaves no room for any text: the template alone takes {len(ids)}. "
            "Raise task.max_prompt_tokens."
        )
    return EncodedPrompt(ids, True)


@dataclass(frozen=True)
class Codec:
    """Encodes prompts and completions for one model.

    Attributes:
        tokenizer: the model's own.
        kind: what the model is.
        max_prompt: the most tokens of a prompt; longer ones are shortened (see `Prompt.cut`).
        max_completion: the most tokens of a completion, the end-of-sequence token included.
        labels: the label set, for encoders that classify: a completion is then one id, the label's index.
        system: the system message put before a plain prompt, where the model has a chat template.

    Raises:
        UserError: if a generating model's tokenizer has no end-of-sequence token, or none can serve as padding.
    """

    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    max_prompt: int = 512
    max_completion: int = 128
    labels: tuple[str, ...] = ()
    system: str | None = None

    def __post_init__(self) -> None:
        tokenizer = self.tokenizer
        if self.kind != "encoder" and tokenizer.eos_token_id is None:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no end-of-sequence token, so a model can't learn to "
                "stop. Set eos_token in its tokenizer_config.json."
            )
        if tokenizer.pad_token_id is None:
            # Safe: every loss and statistic here is masked by position, never by token id.
            if tokenizer.eos_token is None:
                raise UserError(
                    f"the tokenizer of {tokenizer.name_or_path!r} has neither a padding nor an end-of-sequence token. "
                    "Set pad_token in its tokenizer_config.json."
                )
            tokenizer.pad_token = tokenizer.eos_token
        self._check_template()

    def _check_template(self) -> None:
        """Refuse a chat template that no chat can be put into."""
        from jinja2 import TemplateSyntaxError

        if not self.chat:
            return
        try:
            self._prompt_ids("a")
        except UserError as error:  # it may refuse this one chat, and take those of the data
            if isinstance(error.__cause__, (TemplateSyntaxError, TypeError)):
                raise

    @property
    def pad_id(self) -> int:
        """The id that fills up rows."""
        return int(self.tokenizer.pad_token_id)

    @property
    def eos_id(self) -> int:
        """The id that ends a completion."""
        return int(self.tokenizer.eos_token_id)

    @property
    def chat(self) -> bool:
        """Whether prompts go through the model's chat template."""
        return self.kind == "causal" and getattr(self.tokenizer, "chat_template", None) is not None

    def _prompt_ids(self, text: Text) -> list[int]:
        if self.chat:
            messages = [{"role": "user", "content": text}] if isinstance(text, str) else list(text)
            if self.system is not None and messages[0]["role"] != "system":
                messages.insert(0, {"role": "system", "content": self.system})
            return self._chat_ids(messages)
        ids = list(self.tokenizer(transcript(text))["input_ids"])
        if self.kind == "causal" and ids[-1:] == self.tokenizer("")["input_ids"][-1:] == [self.eos_id]:
            ids.pop()  # this tokenizer ends every text; a causal model would take the prompt for finished
        return ids

    def _chat_ids(self, messages: list[Message]) -> list[int]:
        from jinja2 import TemplateError

        try:
            ids = self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
                enable_thinking=False,  # Qwen3's would fill a short answer; templates that don't know it pass over it
            )
        except (TemplateError, TypeError) as error:  # a template may refuse system messages, or two turns of one role
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(
                f"the chat template of {self.tokenizer.name_or_path!r} refuses a chat of {roles}: {error}. Mend the "
                "prompt's messages, or set task.system=null."
            ) from error
        return list(ids)

    def encode_prompt(self, prompt: Prompt) -> EncodedPrompt:
        """Ids of a prompt, shortened to ``max_prompt`` tokens where it is longer (the instruction's end is kept)."""
        return _fit(prompt, self._prompt_ids, self.max_prompt)

    def _completion_ids(self, prompt: Prompt, completion: str) -> list[int]:
        lead = ""
        if self.kind == "causal" and not self.chat and not transcript(prompt.text)[-1:].isspace():
            # Word-initial pieces carry the space before them; SentencePiece tokenizers add theirs themselves.
            pieces = self.tokenizer.tokenize("a")
            lead = "" if pieces and pieces[0].startswith("\u2581") else " "
        # A text that spells a special token, such as </s>, is text: it must not end the completion.
        ids = self.tokenizer(lead + completion, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return list(ids)

    def encode_completion(self, prompt: Prompt, completion: str) -> list[int]:
        """Ids of a completion with the end-of-sequence token, cut at ``max_completion`` (a cut one has no end)."""
        if self.kind == "encoder":
            if completion not in self.labels:
                raise UserError(f"{completion!r} is not one of the model's labels: {', '.join(self.labels)}")
            return [self.labels.index(completion)]
        return [*self._completion_ids(prompt, completion), self.eos_id][: self.max_completion]

    def encode_pair(self, prompt: Prompt, completion: str) -> EncodedPair:
        """Ids of prompt and completion in one sequence, as a reward model reads them.

        A decoder's are the ids it was trained on in SFT; an encoder gets its own pair form.
        """
        limit = self.max_prompt + self.max_completion
        if self.kind == "encoder":
            room = max(limit - self.max_prompt, 1)
            answer = self.tokenizer(completion, add_special_tokens=False)["input_ids"]
            text = completion if len(answer) <= room else self.tokenizer.decode(answer[:room])

            def encode(t: Text) -> list[int]:
                return list(self.tokenizer(transcript(t), text)["input_ids"])

            fitted = _fit(prompt, encode, limit)
            if not fitted.truncated:
                encoded = self.tokenizer(transcript(prompt.text), text)
                return EncodedPair(list(encoded["input_ids"]), encoded.get("token_type_ids"))
            types = self.tokenizer("", text).get("token_type_ids")
            tail = types.count(1) if types is not None else 0
            return EncodedPair(fitted.ids, None if types is None else [0] * (len(fitted.ids) - tail) + [1] * tail)
        ids = self.encode_prompt(prompt).ids
        if self.kind == "seq2seq":
            ids = [i for i in ids if i != self.eos_id]  # these models read their score at the one end-of-sequence token
        answer = self._completion_ids(prompt, completion)[: self.max_completion - 1]
        return EncodedPair([*ids, *answer, self.eos_id], None)

    def decode(self, ids: list[int]) -> str:
        """Text of a completion's ids, without special tokens and surrounding space."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
