from rlhf_lightning.report.rounds import cell


def test_shares_tell_of_how_many_they_are():
    figures = {"foretold": 0.5, "new_pairs": 12, "accuracy": 0.625, "held_out": 8, "win_rate": 0.25}
    figures |= {"win_low": 0.1, "win_high": 0.5, "compared": 16}
    assert cell(figures, "foretold") == "50% (n = 12)"
    assert cell(figures, "accuracy") == "62% (n = 8)"
    assert cell(figures, "win_rate") == "25% (10% to 50%, n = 16)"
    assert cell({"accuracy": 0.5}, "accuracy") == "50%"
    assert cell({"held_out": 0}, "accuracy") == "-"
