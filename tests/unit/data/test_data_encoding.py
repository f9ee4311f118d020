import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_lightning.data.encoding import Codec, transcript
from rlhf_lightning.data.rows import Prompt
from rlhf_lightning.errors import UserError

KINDS = {
    "llama": "causal",
    "gpt2": "causal",
    "ending": "causal",
    "chat": "causal",
    "metaspace": "causal",
    "t5": "seq2seq",
}
ONCE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


@pytest.fixture
def codec(tokenizer):
    def make(family, **options):
        return Codec(tokenizer(family), KINDS.get(family, "encoder"), **options)

    return make


@pytest.fixture(scope="module")
def roomy(tokenizer):
    return {family: Codec(tokenizer(family), kind, 5000, 5000) for family, kind in KINDS.items()}


# --- completions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [k for k in KINDS if k != "metaspace"])
@given(prompt=TEXT, completion=TEXT)
@ONCE
def test_encoding_completion_ends_once_and_comes_back(roomy, family, prompt, completion):
    codec = roomy[family]
    ids = codec.encode_completion(Prompt(prompt), completion)
    assert ids[-1] == codec.eos_id
    assert ids.count(codec.eos_id) == 1
    assert codec.decode(ids) == completion


@pytest.mark.parametrize("family", KINDS)
@given(prompt=TEXT, completion=TEXT)
@ONCE
def test_encoding_pair_is_what_sft_trains_on(roomy, family, prompt, completion):
    codec = roomy[family]
    asked = Prompt(prompt)
    head, tail = codec.encode_prompt(asked).ids, codec.encode_completion(asked, completion)
    if family == "t5":
        assert head[-1] == codec.eos_id
        head = head[:-1]
    assert codec.encode_pair(asked, completion) == (head + tail, None)


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5", "chat"])
def test_encoding_special_tokens_in_a_completion_are_text(codec, family):
    made = codec(family)
    ids = made.encode_completion(Prompt("Which tag?"), "<eos> it is <pad>")
    assert ids.count(made.eos_id) == 1
    assert ids[-1] == made.eos_id
    assert made.decode(ids) == "<eos> it is <pad>"


def test_encoding_completion_is_one_with_the_prompt(codec):
    """Joined apart, the ids are those of the text with a space between, where no piece spans it."""
    for family in ("llama", "gpt2"):
        made = codec(family)
        joined = made.encode_prompt(Prompt("the cat")).ids + made.encode_completion(Prompt("the cat"), "sat on")[:-1]
        assert joined == made.tokenizer("the cat sat on")["input_ids"]
        after_space = made.encode_completion(Prompt("the cat\n"), "sat")[:-1]
        assert made.tokenizer.decode(after_space) == "sat", "no second space after a line's end"
    words = codec("metaspace")
    assert words.tokenizer.convert_ids_to_tokens(words.encode_completion(Prompt("the cat"), "sat"))[0][:1] == "\u2581"
    assert "\u2581\u2581" not in "".join(
        words.tokenizer.convert_ids_to_tokens(words.encode_completion(Prompt("the cat"), "sat"))
    )
    chat = codec("chat")
    assert chat.tokenizer.decode(chat.encode_completion(Prompt("the cat"), "sat")[:-1]) == "sat"


def test_encoding_long_completion_is_cut_without_an_end(codec):
    made = codec("llama", max_completion=5)
    ids = made.encode_completion(Prompt("p"), "where does the sun rise in the morning?")
    assert len(ids) == 5
    assert made.eos_id not in ids
    short = codec("llama", max_completion=40).encode_completion(Prompt("p"), "the")
    assert short[-1] == made.eos_id
    pair = made.encode_pair(Prompt("p"), "where does the sun rise in the morning?").ids
    assert pair[-1] == made.eos_id, "a reward model reads its score there"
    assert len(pair) == len(made.encode_prompt(Prompt("p")).ids) + 5


def test_encoding_causal_prompt_has_no_end(codec):
    for family in ("llama", "gpt2", "ending", "chat", "metaspace"):
        made = codec(family)
        assert made.eos_id not in made.encode_prompt(Prompt("the cat")).ids
    made = codec("ending")
    assert made.tokenizer("the cat")["input_ids"][-1] == made.eos_id, "what the test is about"
    assert codec("t5").encode_prompt(Prompt("the cat")).ids[-1] == 1


# --- prompts that are too long ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "t5"])
@given(document=TEXT, limit=st.integers(20, 60))
@ONCE
def test_encoding_cut_keeps_the_instruction(roomy, family, document, limit):
    made = Codec(roomy[family].tokenizer, KINDS[family], limit, 8)
    text = f"Read: {document}\nTL;DR:"
    prompt = Prompt(text, (6, 6 + len(document)))
    ids, truncated = made.encode_prompt(prompt)
    shown = made.decode(ids)
    full = roomy[family].encode_prompt(prompt).ids
    assert len(ids) <= limit
    assert truncated == (len(full) > limit)
    if not truncated:
        assert ids == full
    assert shown.startswith("Read:")
    assert shown.endswith("TL;DR:")
    kept = shown.removeprefix("Read:").removesuffix("TL;DR:").strip()
    assert document.startswith(kept) or not truncated


def test_encoding_cut_drops_as_little_as_it_can(codec):
    document = "where does the sun rise in the morning? " * 20
    text = f"{document}\nQuestion: good?\nAnswer:"
    for limit in (25, 26, 40, 60):
        ids, truncated = codec("llama", max_prompt=limit).encode_prompt(Prompt(text, (0, len(document))))
        assert truncated
        assert limit - 1 <= len(ids) <= limit


def test_encoding_without_cut_drops_from_the_beginning(codec):
    made = codec("llama", max_prompt=12)
    ids, truncated = made.encode_prompt(Prompt("where does the sun rise in the morning? " * 5 + "Answer:"))
    assert truncated
    assert made.decode(ids).endswith("Answer:")
    assert 11 <= len(ids) <= 12


def test_encoding_cut_that_is_not_enough_goes_on_at_the_beginning(codec):
    made = codec("llama", max_prompt=8)
    ids, truncated = made.encode_prompt(Prompt("a long instruction before the text: mat\nTL;DR:", (36, 39)))
    assert truncated
    assert made.decode(ids).endswith("TL;DR:")
    assert "mat" not in made.decode(ids)


def test_encoding_chat_keeps_system_and_last_turn_and_user_speaks_first(codec):
    turns = [user("the cat sat on the mat " * 4), assistant("good food " * 4)] * 3
    chat = [{"role": "system", "content": "be bad"}, *turns, user("where does the sun rise?")]
    seen = set()
    for limit in range(54, 260, 6):
        made = codec("chat", max_prompt=limit)
        ids, truncated = made.encode_prompt(Prompt(chat))
        shown = made.tokenizer.decode(ids)
        assert len(ids) <= limit
        assert truncated == (made.tokenizer.decode(made._chat_ids(chat)) != shown)
        assert shown.startswith("<|system|>be bad<|user|>")
        assert shown.endswith("<|user|>where does the sun rise?<|assistant|>")
        seen.add(shown.count("<|user|>"))
    assert seen == {1, 2, 3, 4}


def test_encoding_chat_of_one_long_message(codec):
    made = codec("chat", max_prompt=60)
    ids, truncated = made.encode_prompt(Prompt([user("the cat sat " * 50 + "where?")]))
    assert truncated
    assert made.tokenizer.decode(ids).endswith("where?<|assistant|>")
    with pytest.raises(UserError, match=r"template alone takes .* Raise task\.max_prompt_tokens"):
        codec("chat", max_prompt=8).encode_prompt(Prompt([user("the cat")]))


def test_encoding_system_message(codec):
    made = codec("chat", system="be good")
    assert made.tokenizer.decode(made.encode_prompt(Prompt("hi")).ids) == ("<|system|>be good<|user|>hi<|assistant|>")
    own = [{"role": "system", "content": "be bad"}, user("hi")]
    assert "be good" not in made.tokenizer.decode(made.encode_prompt(Prompt(own)).ids)
    assert len(own) == 2, "the row is left as it is"


def test_encoding_chat_template_that_refuses(codec):
    with pytest.raises(UserError, match=r"refuses a chat of user, user: roles must alternate"):
        codec("chat").encode_prompt(Prompt([user("a"), user("b")]))


def test_encoding_transcript():
    chat = [{"role": "system", "content": "S"}, user("U"), assistant("A"), user("V")]
    assert transcript(chat) == "\n\nSystem: S\n\nHuman: U\n\nAssistant: A\n\nHuman: V\n\nAssistant:"
    assert transcript(chat[:3]).endswith("\n\nAssistant: A")
    assert transcript("plain") == "plain"


def test_encoding_chat_without_a_template_is_a_transcript(codec):
    made = codec("llama")
    chat = [user("the cat")]
    assert made.encode_prompt(Prompt(chat)) == made.encode_prompt(Prompt(transcript(chat)))


# --- encoders --------------------------------------------------------------------------------------------------------


def segments(codec, pair):
    """The words of a pair's two texts, told apart by its type ids."""
    return [
        " ".join(codec.tokenizer.convert_ids_to_tokens([i for i, t in zip(*pair, strict=True) if t == kind]))
        for kind in (0, 1)
    ]


def test_encoding_encoder_pairs(codec):
    made = codec("bert", max_prompt=20, max_completion=10)
    pair = made.encode_pair(Prompt("where does the sun rise?"), "in the morning")
    assert segments(made, pair) == ["[CLS] where does the sun rise ? [SEP]", "in the morning [SEP]"]
    assert pair.type_ids == sorted(pair.type_ids)


@pytest.mark.parametrize("words", range(1, 40, 3))
@pytest.mark.parametrize("answer", ["good", "good food bad service the cat", "a b c d e f g " * 3])
def test_encoding_encoder_pairs_that_are_too_long(codec, words, answer):
    made = codec("bert", max_prompt=14, max_completion=6)
    document = " ".join("abcdefg"[i % 7] for i in range(words))
    prompt = Prompt(f"{document} : where?", (0, len(document)))
    pair = made.encode_pair(prompt, answer)
    first, second = segments(made, pair)
    assert len(pair.ids) == len(pair.type_ids) <= 20
    assert first.startswith("[CLS]")
    assert first.endswith(": where ? [SEP]")
    kept = first.removeprefix("[CLS]").removesuffix(": where ? [SEP]").strip()
    assert document.startswith(kept)
    assert second == " ".join(answer.split()[:6]) + " [SEP]", "the answer is cut at max_completion and no shorter"
    if words + 5 + min(len(answer.split()), 6) <= 20:
        assert kept == document


def test_encoding_encoder_without_type_ids(codec):
    made = codec("bert", max_prompt=10, max_completion=4)
    made.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    for text in ("the cat", "the cat sat on the mat " * 5):
        pair = made.encode_pair(Prompt(text), "good")
        assert pair.type_ids is None
        assert len(pair.ids) <= 14


def test_encoding_encoder_labels(codec):
    made = codec("bert", labels=("bad", "good"))
    assert made.encode_completion(Prompt("p"), "good") == [1]
    with pytest.raises(UserError, match="'fine' is not one of the model's labels: bad, good"):
        made.encode_completion(Prompt("p"), "fine")


# --- tokenizers ------------------------------------------------------------------------------------------------------


def test_encoding_padding_falls_back_on_eos(codec):
    made = codec("gpt2")
    assert made.pad_id == made.eos_id == 1
    assert (codec("llama").pad_id, codec("llama").eos_id) == (0, 1)


def test_encoding_refuses_tokenizers_without_an_end(tokenizer):
    bert = tokenizer("bert")
    with pytest.raises(UserError, match=r"no end-of-sequence token.*Set eos_token"):
        Codec(bert, "causal")
    bert.pad_token = None
    with pytest.raises(UserError, match="neither a padding nor an end-of-sequence token"):
        Codec(bert, "encoder")
