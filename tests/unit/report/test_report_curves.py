import math
import re
import xml.etree.ElementTree as ElementTree

from rlhf_lightning.report.curves import Curve, Line, draw, panels, read_curves, thin_out


def test_curves_of_the_stages_that_have_them(run_dir):
    curves = read_curves(run_dir, ["sft", "reward", "ppo", "dpo"])
    assert list(curves) == ["sft", "reward", "ppo"]
    assert curves["sft"]["sft/loss"] == Curve([9, 19, 29], [2.5, 1.5, 1.0])
    assert curves["sft"]["sft/val/rougeL"] == Curve([19], [0.3])
    assert "epoch" not in curves["sft"]
    assert curves["ppo"]["ppo/reward/learned"].values == [0.1, 0.2]  # the half-written cell is left out


def test_a_step_logged_again_after_a_resume_counts_once(tmp_path):
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "metrics.csv").write_text("step,a\n1,1\n2,2\n3,3\n2,20\n3,nan\n\0,\n")
    curve = read_curves(tmp_path, ["sft"])["sft"]["a"]
    assert curve.steps == [1, 2, 3]
    assert curve.values[:2] == [1, 20]
    assert math.isnan(curve.values[2])


def test_training_and_validation_share_a_panel():
    curve = Curve([0], [1.0])
    names = ["lr-AdamW", "sft/val/rougeL", "sft/loss_step", "sft/loss_epoch", "sft/val/loss", "sft/other"]
    drawn = panels("sft", dict.fromkeys(names, curve))
    assert [panel.name for panel in drawn] == ["loss", "rougeL", "other", "lr-AdamW"]
    assert drawn[0].train == curve
    assert drawn[0].validation == curve
    assert drawn[1].train is None
    assert drawn[3].title == "Learning rate"


def test_the_telling_panels_of_ppo_come_first():
    names = ["ppo/loss", "ppo/value_loss", "ppo/entropy", "ppo/kl", "ppo/reward/b", "ppo/score", "ppo/val/chrf"]
    drawn = panels("ppo", dict.fromkeys(names, Curve([0], [1.0])))
    assert [panel.name for panel in drawn] == ["score", "reward/b", "kl", "chrf", "loss", "entropy", "value_loss"]
    led = panels("ppo", dict.fromkeys(names, Curve([0], [1.0])), leading=["gold", "chrf"])
    assert [panel.name for panel in led] == ["chrf", "score", "reward/b", "kl", "loss", "entropy", "value_loss"]


def test_thin_out_averages_equal_stretches():
    curve = Curve([0, 1, 2, 3], [1.0, 3.0, 5.0, 7.0])
    assert thin_out(curve, 4) is curve
    assert thin_out(curve, 2) == Curve([0.5, 2.5], [2.0, 6.0])


def test_a_picture_is_one_svg_in_the_colours_of_the_page():
    curve = Curve([0, 1, 2], [0.5, math.inf, math.nan])
    svg = draw([Line(curve, 0), Line(Curve([1], [2.0]), 9)], label='a "<b>" $x')
    root = ElementTree.fromstring(svg.replace("href=", "xlink_href="))
    assert root.tag.endswith("svg")
    assert root.attrib["aria-label"] == 'a "<b>" $x'
    assert "width" not in root.attrib
    assert {"var(--ink)", "var(--faint)", "var(--c0)", "var(--c1)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert not re.search(r"#0[12]0[23]\w\w", svg)  # no stand-in colour is left


def test_ids_of_two_pictures_do_not_meet():
    curve = Curve([0, 1], [0.5, 0.7])
    ids = [set(re.findall(r'\bid="([^"]+)"', draw([Line(curve, 0)], label=label))) for label in ("one", "two")]
    assert ids[0]
    assert not ids[0] & ids[1]
    svg = draw([Line(curve, 0)], label="one")
    assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", svg)) <= ids[0]
