"""One small survey of the embedded model: facts that a wrong hook, sign or split would break."""

import pytest

import aligntax
from aligntax.commands import sizes
from aligntax.commands.selection import MOST_DIRECT

TINY = sizes.Size("demo", 16, 8, 1, (24, 8, 8), 16, 6, 12, 2, 12, 8, 1, (0.1,))


@pytest.mark.embedded
def test_survey_of_the_embedded_model(tmp_path, monkeypatch):
    monkeypatch.setitem(sizes.SIZES, "demo", TINY)
    survey = aligntax.survey(
        "smollm2-135m-instruct",
        size="demo",
        out=tmp_path,
        tasks=["copying", "arithmetic", "translation-en-de"],
        safety=["harmlessness"],
    )
    chosen = survey.at_layer()
    assert len(survey.layers) == 30 and 0 in chosen.sinks
    assert abs(survey.extra["direct_share"][survey.layer]) <= MOST_DIRECT < 0.9 < survey.extra["direct_share"][-1]
    # The gradient raises refusals on prompts that it has not seen, at a KL that was measured.
    assert survey.selection.final_low > 0.5
    assert all(abs(c.kl_nats / 0.1 - 1) < 0.05 for c in survey.selection.candidates)
    # A constant push cannot tell harmful from harmless.
    assert survey.over_refusal.cosine < -0.8
    # dim and gradient are nearly orthogonal at most layers.
    pairs = [a.cosine for a in survey.agreement if (a.first, a.second) == ("gradient", "dim") and a.cosine is not None]
    assert sum(abs(c) < 0.3 for c in pairs) > len(pairs) / 2
    gained, promised = (getattr(survey.linearity, f"refusal_{k}_by_budget")["0.1"] for k in ("gain", "predicted"))
    assert 0.3 < gained / promised < 1.2
