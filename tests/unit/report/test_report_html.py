import re
import shutil
from html.parser import HTMLParser

import pytest

from rlhf_lightning.errors import UserError
from rlhf_lightning.report import write_report

VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """The page's elements and texts; fails where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.urls: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1:] != ["style"]:
            self.texts.append(data.strip())


def read(run_dir):
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_all_sections(run_dir):
    text, page = read(run_dir)
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "Results on held-out rows",
        "PPO against SFT, answer by answer",
        "Reward, objective and KL",
        "Learning curves of SFT",
        "Learning curves of the reward model",
        "Learning curves of PPO",
        "Reward model on held-out preferences",
        "Samples",
        "Settings",
        "Notes",
    ]
    assert "PPO raised gold from 0.520 to 0.710 (+0.190) at KL 3.1; the base model had 0.310." in page.texts
    assert "summarization · seed 3 · 40 held-out rows" in " ".join(page.texts)
    # sft: loss, rougeL; reward: loss, accuracy; ppo: score, reward/learned, kl; and one of reward and KL together
    assert page.tags.count("figure") == page.tags.count("svg") == 8
    assert "36 preference rows dropped: chosen equals rejected" in page.texts
    assert "Made with torch 2.9.0." in page.texts
    assert "width: 80.0%" in text
    assert "width: 50.0%" in text


def test_the_table_has_values_and_changes_to_the_policy_before(run_dir):
    text, _ = read(run_dir)
    row = re.search(r"<tr class=objective>.*?</tr>", text)[0]
    assert re.findall(r"<td[^>]*>([^<]*)(?:<small[^>]*>([^<]*))?", row) == [
        ("0.310", ""),
        ("0.520", "+0.210"),
        ("0.710", "+0.190"),
    ]
    assert '<td class=best>0.710<small class="good">' in row
    ter = re.search(r"<tr><th[^>]*>ter ↓.*?</tr>", text)[0]
    assert '<td class=best>55.5<small class="good">−4.5</small>' in ter  # lower is better
    rouge = re.search(r"<tr><th[^>]*>rougeL ↑.*?</tr>", text)[0]
    assert '<small class="bad">−0.020</small>' in rouge
    kl = re.search(r"<tr><th[^>]*>kl<.*?</tr>", text)[0]
    assert "good" not in kl
    assert "best" not in kl


def test_nothing_runs_and_nothing_is_fetched(run_dir):
    text, page = read(run_dir)
    assert not {"script", "iframe", "object", "link", "img", "form"} & set(page.tags)
    assert all(url.startswith("#") for url in page.urls)
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_untrusted_text_is_escaped(run_dir):
    from rlhf_lightning.report import RunResults

    evil = "</style><script>alert(1)</script>"
    results = RunResults.read(run_dir / "metrics.json")
    results.task = results.policies[2].name = evil
    results.notes = results.stages = [evil]
    results.versions = {evil: evil}
    results.reward_model = {evil: 0.5}
    results.seconds = {evil: 1.0}
    results.columns["task"].append(evil)
    results.policies[2].metrics[evil] = 0.5
    results.write(run_dir / "metrics.json")
    (run_dir / ".hydra" / "config.yaml").write_text(f"a: {evil}\n")
    header = f'step,"sft/{evil}"\n0,1.0\n'
    (run_dir / "sft" / "metrics.csv").write_text(header)
    results.stages = ["sft"]
    results.write(run_dir / "metrics.json")
    text, page = read(run_dir)
    assert "script" not in page.tags
    assert "<script" not in text
    assert text.count("</style>") == 1
    assert "\x1b" not in text
    assert any("alert('x')" in shown for shown in page.texts)


def test_samples_with_scores_and_the_extremes(run_dir):
    text, page = read(run_dir)
    assert "Where PPO gained most in gold" in page.texts
    gained, lost = text.split("gained most")[1].split("lost most")
    assert re.findall(r"prompt (\d)</h4>", gained) == ["9", "8", "7"]
    assert re.findall(r"prompt (\d)</h4>", lost)[:3] == ["0", "1", "2"]
    assert "gold 0.90" in gained
    assert page.texts.count("(empty)") == 10 + 6  # ten rows, six of them again as extremes


def test_settings_are_folded_and_secrets_hidden(run_dir):
    text, _ = read(run_dir)
    assert "<summary>Overrides</summary>" in text
    assert "<summary>Composed config</summary>" in text
    assert "- ppo.kl_coef=0.05" in text
    assert "abc123" not in text
    assert "xyz789" not in text
    assert "max_tokens: 5" in text


def test_settings_that_cannot_be_read_are_not_quoted(run_dir):
    (run_dir / ".hydra" / "config.yaml").write_text("token: abc123\n bad: [abc123\n")
    text, _ = read(run_dir)
    assert "not readable" in text
    assert "abc123" not in text


def test_a_run_of_sft_alone_that_was_interrupted(run_dir):
    from rlhf_lightning.report import RunResults

    results = RunResults.read(run_dir / "metrics.json")
    results.status = "interrupted"
    results.policies = results.policies[:2]
    results.reward_model = None
    results.notes = []
    results.write(run_dir / "metrics.json")
    for name in ("reward", "ppo", ".hydra"):
        shutil.rmtree(run_dir / name)
    (run_dir / "samples.jsonl").unlink()
    text, page = read(run_dir)
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Results on held-out rows", "Learning curves of SFT"]
    assert "The run was interrupted; there are results up to SFT." in page.texts
    assert "SFT raised gold from 0.310 to 0.520 (+0.210) at KL 1.5." in page.texts


def test_a_run_without_any_results(tmp_path):
    from rlhf_lightning.report import RunResults

    RunResults("qa", status="running", stages=["sft"]).write(tmp_path / "metrics.json")
    _, page = read(tmp_path)
    assert "The run has not finished; no stage has results." in page.texts
    assert "svg" not in page.tags


def test_empty_csv(run_dir):
    for content in ("", "step,sft/loss\n", "epoch\n1\n"):
        (run_dir / "sft" / "metrics.csv").write_text(content)
        text, _ = read(run_dir)
        assert "Learning curves of SFT" not in text


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        write_report(tmp_path)
