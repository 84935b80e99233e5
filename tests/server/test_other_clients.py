"""Programs that know nothing of pjlocal, and pjlocal's own evaluation, ask the server as they ask any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from evaluated import make_answer
from real_clients import CLIENTS, FEATURES
from served import Served, serving

from pjlocal import PersonaJudge
from pjlocal.engine.interrupt import Interrupt
from pjlocal.evaluation.endpoint import EndpointJudge
from pjlocal.evaluation.question import Question

MODELS = """
- model_id: bold
  model_name: bold
  api_base: {url}/v1
- model_id: vivid
  model_name: vivid+creative
  api_base: {url}/v1
  completion: true
"""
OPTIONS = ("--batch-size", "32")


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-m", "bold"), ("-m", "bold", "--no-stream", "-s", "Be brief."), ("-m", "vivid")])
def test_llm_answers_by_a_persona(served: Served, tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(url=served.url))
    before = served.metric("pjlocal_completion_tokens_total")
    result = subprocess.run(
        [sys.executable, "-m", "llm", *options, "-o", "max_tokens", "7", "-o", "seed", "3", "--key", "none", "hello"],
        capture_output=True,
        env=os.environ | {"LLM_USER_PATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr.decode()
    assert 0 < served.metric("pjlocal_completion_tokens_total") - before <= 7
    assert result.stdout.strip()


@pytest.mark.slow
def test_the_real_model_says_what_it_says_without_a_server_and_judges_for_an_evaluation(
    smollm2: Path, server_environment: dict[str, str], vivid_and_creative: PersonaJudge
) -> None:
    with serving(smollm2, server_environment, "--ctx", "2048") as served:
        client = served.openai()
        for seed in range(3):
            expected = vivid_and_creative("Why do cats purr?", mode="both", seed=seed, max_tokens=40)
            answer = client.chat.completions.create(
                model="vivid+creative",
                messages=[{"role": "user", "content": "Why do cats purr?"}],
                seed=seed,
                max_tokens=40,
            )
            assert answer.choices[0].message.content == expected.text
        first, second = make_answer("Arr, matey!"), make_answer("Plainly said.", system="plain")
        judge = EndpointJudge(f"{served.url}/v1", smollm2.stem, Interrupt())
        ((_, said),) = judge.ask([[Question(first, second, "p", "Talk like a pirate.", 0)]], set())
        assert sum(said) == pytest.approx(1)
        assert 0 < said[0] < 1  # by the probabilities, not by the one token of the reply


@pytest.mark.slow
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_has_what_it_offers(served: Served, name: str, feature: str) -> None:
    """Only `openai` and `llm` come with the extra `dev`; the others are tried where they are installed."""
    pytest.importorskip(name)
    client = CLIENTS[name]()
    if feature not in client:
        pytest.skip(f"{name} does not offer it")
    client[feature](f"{served.url}/v1")
