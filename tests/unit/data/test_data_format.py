import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.data.encoding import transcript
from rlhf_lightning.data.files import Record
from rlhf_lightning.data.format import EmptyAnswer, RowFormat, SameCompletions, split_transcripts
from rlhf_lightning.errors import UserError

FORMAT = RowFormat("{document}\nHeadline:", completion="title", references="references", cut="document")
USER = [{"role": "user", "content": "Hi?"}]


def record(**values):
    return Record("train.tsv, line 12", values)


def said(text):
    return [{"role": "assistant", "content": text}]


@given(st.text(), st.text(), st.text(), st.text(min_size=1), st.text(min_size=1))
def test_format_fills_and_marks_the_cut(before, between, after, first, second):
    def literal(text):
        return text.replace("{", "{{").replace("}", "}}")

    form = RowFormat(f"{literal(before)}{{q}}{literal(between)}{{d}}{literal(after)}", cut="d")
    row = record(q=first, d=second, references=["r"])
    if not first.strip() or not second.strip():
        with pytest.raises(UserError, match="is empty"):
            form.prompt_row(row)
        return
    prompt = form.prompt_row(row).prompt
    assert prompt.text == before + first.strip() + between + second.strip() + after
    start, end = prompt.cut
    assert (start, prompt.text[start:end]) == (len(before + first.strip() + between), second.strip())


def test_format_cut_where_the_text_occurs_twice():
    prompt = RowFormat("{q} in {d}", cut="d").prompt_row(record(q="same", d="same", references="r")).prompt
    assert prompt.cut == (8, 12)


def test_format_rows_of_a_task():
    row = record(document=["One.", "Two."], title=" T ", extra=3)
    assert FORMAT.sft_row(row).prompt.text == "One. Two.\nHeadline:"
    assert FORMAT.sft_row(row).completion == "T"
    assert FORMAT.sft_row(row).meta == row.values
    assert FORMAT.prompt_row(row).references == ["T"]
    assert FORMAT.prompt_row(record(document="d", references=["a", "b"])).references == ["a", "b"]
    assert FORMAT.prompt_row(record(document="d", references={"text": ["a"], "answer_start": [0]})).references == ["a"]
    assert FORMAT.sft_row(record(document="d", references=["a", "b"])).completion == "a"
    assert FORMAT.prompt_row(record(document="d"), need_references=False).references == []


def test_format_preferences_and_unpaired():
    form = RowFormat("{q}", weight="w", margin="m")
    row = form.preference_row(record(q="q", chosen="a", rejected="b", w="2", m=0.5))
    assert (row.chosen, row.rejected, row.weight, row.margin) == ("a", "b", 2.0, 0.5)
    with pytest.raises(SameCompletions):
        form.preference_row(record(q="q", chosen="a", rejected=" a ", w=1, m=0))
    for weight in ("x", -1, float("nan"), None, 10**400):
        with pytest.raises(UserError, match=r"line 12: the field 'w' is .* expected a number that is not negative"):
            form.preference_row(record(q="q", chosen="a", rejected="b", w=weight, m=0))
    soft = RowFormat("{q}", probability="p", group="g").preference_row
    told = soft(record(q="q", chosen="a", rejected="b", p="0.75", g=7))
    assert (told.probability, told.group, told.weight, told.meta["g"]) == (0.75, "7", 1.0, 7)
    for empty in (None, ""):
        assert soft(record(q="q", chosen="a", rejected="b", p=1, g=empty)).group is None
    for p in (0.4, 1.5):
        with pytest.raises(UserError, match=r"'p' is .*the probability that 'chosen' is preferred, 0\.5 to 1.*swap"):
            soft(record(q="q", chosen="a", rejected="b", p=p, g="r"))
    with pytest.raises(UserError, match="there is no column 'g'"):
        soft(record(q="q", chosen="a", rejected="b", p=1))
    with pytest.raises(UserError, match=r"the field 'g' is .*expected a ranking's name"):
        soft(record(q="q", chosen="a", rejected="b", p=1, g=["r"]))
    assert form.unpaired_row(record(q="q", completion="a", label=1, w="0.5")).weight == 0.5
    judged = RowFormat("{q}", completion="gold", labels=["yes", "no"]).unpaired_row
    row = judged(record(q="q", gold="yes", completion="perhaps", label=0))
    assert (row.completion, row.label, row.weight) == ("perhaps", False, 1.0), "what was judged, which may be no label"
    with pytest.raises(UserError, match="there is no column 'label'"):
        judged(record(q="q", completion="a"))
    for label, expected in ((True, True), (0, False), (1.0, True), ("True", True), ("false", False), ("1", True)):
        assert RowFormat("{q}").unpaired_row(record(q="q", completion="a", label=label)).label is expected
    with pytest.raises(UserError, match="the field 'label' is 'up'; expected true or false"):
        RowFormat("{q}").unpaired_row(record(q="q", completion="a", label="up"))


def test_format_trl_rows_as_they_are():
    assert FORMAT.sft_row(record(prompt="Hi?", completion="Yes")).prompt.text == "Hi?"
    row = FORMAT.preference_row(record(prompt=USER, chosen=said("Yes"), rejected=said("No")))
    assert (row.prompt.text, row.chosen, row.rejected) == (USER, "Yes", "No")
    assert FORMAT.unpaired_row(record(prompt=USER, completion=said("Yes"), label=True)).completion == "Yes"
    assert RowFormat("{prompt}").prompt_row(record(prompt=USER, references="r")).prompt.text == USER
    assert FORMAT.prompt_row(record(prompt="TRL", document="d", references="r")).prompt.text == "d\nHeadline:"
    with pytest.raises(UserError, match="must hold one assistant message"):
        FORMAT.sft_row(record(prompt=USER, completion=USER))
    for bad in ("x", {"role": "user"}, {"role": "user", "content": None}):
        with pytest.raises(UserError, match="needs the texts 'role' and 'content'"):
            FORMAT.sft_row(record(prompt=[*USER, bad], completion="a"))


def test_format_labels_are_closed():
    form = RowFormat("{q}", labels=["positive", "negative"])
    assert form.sft_row(record(q="q", completion="positive")).completion == "positive"
    for values in ({"completion": "postive"}, {"references": ["postive"]}):
        with pytest.raises(
            UserError, match=r"'postive' in .* is not one of positive, negative\. Did you mean 'positive'"
        ):
            (form.sft_row if "completion" in values else form.prompt_row)(record(q="q", **values))
    row = form.preference_row(record(q="q", chosen="positive", rejected="negative negative"))
    assert row.rejected == "negative negative", "a policy may have written what is no label"


@pytest.mark.parametrize("label", [1, True, "", " spaced"])
def test_format_refuses_labels_that_are_no_texts(label):
    with pytest.raises(UserError, match=r"labels: .* must be a text .* in quotes"):
        RowFormat("{q}", labels=["good", label])


def test_format_no_answer():
    form = RowFormat("{q}", no_answer="unanswerable")
    for empty in ([], "", [""], None):
        assert form.prompt_row(record(q="q", references=empty)).references == ["unanswerable"]
        with pytest.raises(UserError, match="the field 'references' is empty; expected a text, or a list of texts"):
            RowFormat("{q}").prompt_row(record(q="q", references=empty))
    assert form.sft_row(record(q="q", completion="")).completion == "unanswerable"


def test_format_trl_completion_is_the_reference():
    for completion in ("Yes", said("Yes")):
        assert FORMAT.prompt_row(record(prompt=USER, completion=completion)).references == ["Yes"]
    assert FORMAT.prompt_row(record(prompt="Hi?", completion="Yes", references=["No"])).references == ["No"]
    assert FORMAT.prompt_row(record(document="d", title="T", completion="no")).references == ["T"]


def test_format_a_list_of_answers_are_alternatives():
    for name in ("title", "completion"):
        row = record(document=["In", "France."], **{name: ["Paris ", "Paris, France"]})
        assert FORMAT.sft_row(row).prompt.text == "In France.\nHeadline:"
        assert FORMAT.sft_row(row).completion == "Paris"
        assert FORMAT.prompt_row(row).references == ["Paris", "Paris, France"]
    squad = record(document="d", title={"text": ["a", "b"], "answer_start": [0, 1]})
    assert (FORMAT.sft_row(squad).completion, FORMAT.prompt_row(squad).references) == ("a", ["a", "b"])
    form = RowFormat("{q}", labels=["good", "bad"], no_answer="bad")
    assert form.sft_row(record(q="q", completion=["good", "bad"])).completion == "good"
    assert form.sft_row(record(q="q", completion=[])).completion == "bad"
    with pytest.raises(UserError, match="the label 'god' in 'completion' is not one of"):
        form.sft_row(record(q="q", completion=["good", "god"]))
    with pytest.raises(UserError, match="line 12: the field 'title' is empty"):
        FORMAT.sft_row(record(document="d", title=[]))


def test_format_refuses_alternatives_where_one_text_is_meant():
    message = r"line 12: the field '{}' has a list of 2 texts where one text is expected"
    for name, other in (("chosen", "rejected"), ("rejected", "chosen")):
        with pytest.raises(UserError, match=message.format(name)):
            FORMAT.preference_row(record(document="d", **{name: ["a", "b"], other: "c"}))
        assert FORMAT.preference_row(record(document="d", **{name: ["a"], other: "c"}))
    with pytest.raises(UserError, match=message.format("references")):
        FORMAT.prompt_row(record(document="d", references=["a", ["b", "c"]]))


def test_format_missing_and_wrong_fields():
    with pytest.raises(UserError) as caught:
        FORMAT.sft_row(record(documents="d", title="t"))
    for part in ("train.tsv, line 12", "'document'", "documents, title", "Did you mean 'documents'", "data.columns={"):
        assert part in str(caught.value)
    for value, found in (("  ", "empty"), (None, "empty"), (3, "of type int"), ([1], "of type list")):
        with pytest.raises(UserError, match=f"line 12: the field 'document' is {found}; expected a text"):
            FORMAT.sft_row(record(document=value, title="t"))
    with pytest.raises(UserError, match='expected a text: write it in quotes, "42"'):
        FORMAT.sft_row(record(document="d", title=42))
    with pytest.raises(UserError, match="the field 'title' is empty"):
        FORMAT.sft_row(record(document="d", title=" "))
    with pytest.raises(UserError, match="no column 'references'"):
        FORMAT.prompt_row(record(document="d"))


def test_format_names_all_missing_columns_and_guesses_each_once():
    with pytest.raises(UserError) as caught:
        FORMAT.prompt_row(record(docment="d", reference="r"))
    for part in (
        "there are no columns 'document', 'references'; the columns are docment, reference.",
        "Did you mean 'docment', 'reference'?",
        "data.columns={document: docment, references: reference}",
    ):
        assert part in str(caught.value)
    with pytest.raises(
        UserError, match=r"data\.columns=\{references: YOUR_COLUMN\}"
    ):  # never the document's own column
        FORMAT.prompt_row(record(document="d"))
    renamed = Record("f", {"documnt": "d", "title": "t", "references": "r"}, {"documnt": "article", "title": "head"})
    with pytest.raises(UserError, match=r"data\.columns=\{title: head, document: article\}"):  # the whole option
        FORMAT.prompt_row(renamed)
    with pytest.raises(UserError, match="no columns 'chosen', 'rejected'"):
        FORMAT.preference_row(record(document="d"))
    with pytest.raises(UserError, match="no column 'title'"):  # a row with a prompt of its own needs no document
        FORMAT.sft_row(record(prompt="p"))


@pytest.mark.parametrize("template", ["{", "}", "no column", "{}", "{a!r}", "{a:>3}"])
def test_format_refuses_templates(template):
    with pytest.raises(UserError, match="prompt template"):
        RowFormat(template)


def test_format_refuses_cut():
    for template in ("{a}", "{b} {b}"):
        with pytest.raises(UserError, match="exactly once"):
            RowFormat(template, cut="b")


def test_format_preferences_as_whole_chats():
    """TRL's preferences with an implicit prompt, with and without the prompt in a column of its own."""
    turns = [*USER, *said("Well"), *USER]
    for extra in ({}, {"prompt": "Hi?"}):
        row = FORMAT.preference_row(record(chosen=[*turns, *said("Yes ")], rejected=[*turns, *said("No")], **extra))
        assert (row.prompt.text, row.prompt.cut, row.chosen, row.rejected) == (turns, None, "Yes", "No")
    with pytest.raises(SameCompletions):
        FORMAT.preference_row(record(chosen=[*USER, *said("Yes")], rejected=[*USER, *said("Yes ")]))
    with pytest.raises(EmptyAnswer, match="'rejected' has an empty answer"):
        FORMAT.preference_row(record(chosen=[*USER, *said("Yes")], rejected=[*USER, *said(" ")]))
    for rejected in ([*USER, *USER], [{"role": "user", "content": "Ho?"}, *said("No")], [*turns, *said("No")]):
        with pytest.raises(UserError, match="must differ in the assistant's last message alone"):
            FORMAT.preference_row(record(chosen=[*USER, *said("Yes")], rejected=rejected))
    with pytest.raises(UserError, match="needs the texts 'role' and 'content'"):
        FORMAT.preference_row(record(chosen=[*USER, *said("Yes")], rejected=[*USER, "No"]))


def dialogue(*turns):
    return "".join(f"\n\n{'Assistant' if i % 2 else 'Human'}: {turn}" for i, turn in enumerate(turns))


def test_format_splits_transcripts_at_the_last_common_turn():
    chosen, rejected = dialogue("Hi", "Hello", "And?", "Well yes"), dialogue("Hi", "Hello", "And?", "Well no")
    row = FORMAT.preference_row(record(chosen=chosen, rejected=rejected))
    assert row.prompt.text == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]
    assert (row.chosen, row.rejected) == ("Well yes", "Well no")
    early = FORMAT.preference_row(record(chosen=dialogue("Hi", "A", "So", "B"), rejected=dialogue("Hi", "C")))
    assert (early.chosen, early.rejected) == ("A\n\nHuman: So\n\nAssistant: B", "C")
    beginning = FORMAT.preference_row(record(chosen=dialogue("Hi", "A"), rejected=dialogue("Hi", "A more")))
    assert (beginning.chosen, beginning.rejected) == ("A", "A more")


WORDS = st.text(st.sampled_from("ab .\n"), min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.lists(WORDS, min_size=1, max_size=5), WORDS, WORDS, WORDS)
def test_format_transcripts_recombine(turns, shared, first, second):
    turns = turns if len(turns) % 2 else turns[1:] or [shared]
    chosen, rejected = dialogue(*turns, f"{shared} {first}"), dialogue(*turns, f"{shared} {second}")
    if first == second:
        with pytest.raises(SameCompletions):
            split_transcripts("here", chosen, rejected)
        return
    prompt, *answers = split_transcripts("here", chosen, rejected)
    for answer, whole in zip(answers, (chosen, rejected), strict=True):
        assert f"{transcript(prompt.text)} {answer}" == whole
    assert [message["content"] for message in prompt.text] == turns


def test_format_transcripts_that_say_nothing():
    with pytest.raises(SameCompletions):
        FORMAT.preference_row(record(chosen=dialogue("Hi", "A"), rejected=dialogue("Hi", "A")))
    with pytest.raises(EmptyAnswer, match="'rejected' has an empty answer"):
        FORMAT.preference_row(record(chosen=dialogue("Hi", "A"), rejected=dialogue("Hi", "")))
    with pytest.raises(UserError, match="no beginning in common"):
        FORMAT.preference_row(record(chosen=dialogue("Hi", "A"), rejected=dialogue("Ho", "A")))


def test_format_transcript_turns_alternate():
    start = "\n\nHuman: Hi\n\nHuman: There?\n\nAssistant:"
    row = FORMAT.preference_row(record(chosen=start + " Yes", rejected=start + " No"))
    assert row.prompt.text == [{"role": "user", "content": "Hi\n\nThere?"}]


def test_format_transcripts_demonstrate_the_chosen_answer():
    """A preference without a prompt, as Anthropic's, is a demonstration of what the chosen dialogue ends with."""
    chosen, rejected = dialogue("Hi", "Hello", "And?", "Well yes"), dialogue("Hi", "Ha")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    turns.append({"role": "user", "content": "And?"})
    row = FORMAT.sft_row(record(chosen=chosen, rejected=rejected))
    assert (row.prompt.text, row.completion) == (turns, "Well yes")
    asked = FORMAT.prompt_row(record(chosen=chosen, rejected=rejected))
    assert (asked.prompt, asked.references) == (row.prompt, ["Well yes"])
    assert FORMAT.prompt_row(record(chosen=chosen), need_references=False).prompt == row.prompt
    twice = FORMAT.sft_row(record(chosen="\n\nHuman: Hi\n\nAssistant: Yes\n\nAssistant: And no", rejected=rejected))
    assert (twice.prompt.text, twice.completion) == (turns[:1], "Yes\n\nAnd no")
    for silent in (dialogue("Hi", "Hello", "And?", ""), dialogue("Hi", "Hello", "And?")):
        with pytest.raises(EmptyAnswer, match="ends without an answer"):
            FORMAT.sft_row(record(chosen=silent, rejected=rejected))


def test_format_chats_demonstrate_the_chosen_answer():
    row = FORMAT.sft_row(record(chosen=[*USER, *said("Yes ")], rejected=[*USER, *said("No")]))
    assert (row.prompt.text, row.completion) == (USER, "Yes")
    with pytest.raises(UserError, match="must end with the assistant's message, not with one of 'user'"):
        FORMAT.sft_row(record(chosen=[*USER, *USER], rejected=[*USER, *said("No")]))
    with pytest.raises(EmptyAnswer, match="the chat ends without an answer"):
        FORMAT.sft_row(record(chosen=[*USER, *said(" ")], rejected=[*USER, *said("No")]))


def test_format_preferences_with_a_prompt_are_no_demonstrations():
    """What is imitated there has to be said: data.columns={completion: chosen}."""
    with pytest.raises(UserError, match="there is no column"):
        FORMAT.sft_row(record(prompt="Hi?", chosen="Yes", rejected="No"))


def test_a_completion_beside_a_prompt_of_its_own_is_the_demonstration():
    """A row that brings the task's columns along, as rows of people's corrections do."""
    form = RowFormat("{source} =", completion="reference")
    values = {"prompt": "Hallo =", "completion": "Hello", "source": "Hallo", "reference": "Hi"}
    assert form.sft_row(Record("x", values)).completion == "Hello"
    del values["prompt"]
    assert form.sft_row(Record("x", values)).completion == "Hi"
