"""What is said of generated text and decoded tasks agrees with the rows it is said of."""

import pandas as pd
import pytest

from hemorrhage.reporting import decoding_findings

GRID = {"recipes": {}, "axes": {}, "repairs": {}}
COLUMNS = ["model", "variant", "probe", "metric", "value", "low", "high", "blocks"]


def table(*rows):
    return pd.DataFrame([(model, *row, 16) for row in rows for model in ["m"]], columns=COLUMNS)


def text(variant, decoder, metric, value, low=0.0, high=1.0):
    return (variant, f"text.{decoder}", metric, value, low, high)


def score(variant, decoder, value):
    return (variant, f"decoded_tasks.{decoder}", "score.sums", value, 0.0, 1.0)


def test_extremes_are_those_of_the_means_over_decoders():
    kept, same = "weight_effect.first_divergence", "weight_effect.token_agreement"
    found = decoding_findings.sentences(
        table(
            *(text("identity", decoder, kept, 48) for decoder in ("greedy", "beam")),
            *(text("a", decoder, kept, value) for decoder, value in (("greedy", 4), ("beam", 2))),
            *(text("b", decoder, kept, value) for decoder, value in (("greedy", 1), ("beam", 9))),
            *(text("a", decoder, same, value) for decoder, value in (("greedy", 0.4), ("beam", 0.1))),
        ),
        GRID,
    )
    assert found[0] == (
        "Text, by the mean of 2 decoders: the weights of b keep the reference's words for 5.00 tokens, those of a for "
        "3.00."
    )
    assert "least of the text by greedy (40.0 % of the tokens stay), most by beam (10.0 %" in found[1]


def test_amplification_counts_intervals_on_either_side_of_one():
    rows = [
        text("a", "greedy", "amplification_common", 3, 2, 4),
        text("a", "top_k", "amplification_common", 0.5, 0.2, 0.9),
        text("b", "greedy", "amplification_common", 1.5, 0.8, 2),
        text("b", "top_k", "amplification_common", float("nan"), float("nan"), float("nan")),
    ]
    (found,) = decoding_findings.sentences(table(*rows), GRID)
    assert "1.50 times as many tokens" in found and "median of 3 pairs" in found
    assert "above 1 in 1 of them, below 1 in 1" in found


@pytest.mark.parametrize(("other", "named"), [(0.25, True), (0.26, False)])
def test_decoders_that_make_the_same_text_are_named(other, named):
    rows = [
        text("identity", decoder, "decoder_effect.token_agreement", value)
        for decoder, value in (("top_p", 0.25), ("typical", other))
    ]
    found = [
        s
        for s in decoding_findings.sentences(
            table(*rows, text("a", "top_p", "decoder_effect.x", 1), text("a", "typical", "decoder_effect.x", 1)), GRID
        )
        if "top p and typical" in s
    ]
    assert bool(found) == named


def test_a_task_without_a_difference_names_no_best_decoder():
    rows = [score("identity", "greedy", 0.5), score("identity", "beam", 0.5), score("a", "greedy", 0.25)]
    rows += [score("a", "beam", 0.5), score("b", "greedy", 0.0), score("b", "beam", 0.0)]
    (found,) = decoding_findings.sentences(table(*rows), GRID)
    assert "all 2 decoders score 50 % (16 items" in found
    assert "of the variants by greedy, a 25 % to b 0 %" in found
    assert "widest on a, 100 % of the worst" in found


def test_a_task_that_one_decoder_answers_has_its_score_and_no_range():
    (found,) = decoding_findings.sentences(table(score("identity", "greedy", 0.5), score("a", "greedy", 0.25)), GRID)
    assert found == (
        "Task sums on m, unmodified: greedy scores 50 % (16 items, intervals in the figure); of the variants by "
        "greedy, a 25 %."
    )


def test_a_task_names_its_best_and_worst_decoder_and_their_range():
    rows = [score("identity", "greedy", 0.5), score("identity", "beam", 0.75)]
    (found,) = decoding_findings.sentences(table(*rows), GRID)
    assert "best beam with 75 %, worst greedy with 50 %, a range of 50 % of the worst" in found
