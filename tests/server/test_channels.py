"""Clients send a model's answers back as they got them, with whatever marks of thought stand in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from served import serving


@pytest.mark.slow
def test_an_answer_that_is_sent_back_is_taken_however_it_is_worded(
    tmp_path: Path, server_environment: dict[str, str]
) -> None:
    model = tiny_models.write_llama(tmp_path / "oss.gguf", chat_template=tiny_models.HARMONY, n_ctx_train=2048)
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
    with serving(model, server_environment) as served:

        def n_prompt(*answers: str) -> int:
            messages = [{"role": "user", "content": "Why?"}]
            for answer in answers:
                messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And?"}]
            reply = served.openai().chat.completions.create(model="oss", messages=messages, max_tokens=1)
            return reply.usage.prompt_tokens

        plain = n_prompt("Yes", "No")
        assert n_prompt(f"{thought}Yes", f"{thought}No") == plain, "thoughts leave the prompt"
        assert n_prompt(f"Yes: {thought}", "No") > plain
        assert n_prompt("<|channel|>analysis<|message|>Hm") == n_prompt("")
