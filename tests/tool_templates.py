"""Chat templates that show functions and write calls, in short, as several families have them."""

from __future__ import annotations

_TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{{ m['content'] }}"
    "{% for call in m.tool_calls or [] %}CALL{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SHOWN = "{% if tools %}{{ '<|im_start|>system\n' }}{{ tools | tojson }}{{ '<|im_end|>\n' }}{% endif %}"


def _writing(call: str) -> str:
    return _SHOWN + _TURNS.replace("CALL", call)


#: Qwen's and Nous Research's.
HERMES = _writing(
    """{{ '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}"""
    """{{ call.function.arguments | tojson }}{{ '}\n</tool_call>' }}"""
)
#: Llama 3's, without a mark.
LLAMA = _writing(
    """{{ '{"name": "' + call.function.name + '", "parameters": ' }}{{ call.function.arguments | tojson }}{{ '}' }}"""
)
#: Mistral's, which begins with a control token, here one of the tiny vocabulary, and insists on the length of ids.
MISTRAL = _writing(
    "{% if call.id | length != 9 %}{{ raise_exception('an id has nine characters') }}{% endif %}"
    "{{ '<|im_start|>[' + (call.function | tojson) + ']' }}"
)
#: DeepSeek's, which takes the arguments as a text.
DEEPSEEK = _writing("{{ '<s>' + call.type + '<|im_start|>' + call.function.name + '\n' + call.function.arguments }}")
#: gpt-oss's, whose calls begin within the head of the answer.
HARMONY = (
    _SHOWN
    + "{% for m in messages %}{{ '<|im_start|>' + m['role'] }}{% for call in m.tool_calls or [] %}"
    + "{{ ' to=functions.' + call.function.name + '<s>json\n' + call.function.arguments | tojson }}"
    + "{% else %}{{ '\n' + m['content'] }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    + "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
#: Gemma's, whose arguments are not JSON.
GEMMA = _writing(
    "{{ '<call>' + call.function.name + '{' }}"
    "{% for key, value in call.function.arguments.items() %}{{ key }}:{{ value }}{% endfor %}{{ '}' }}"
)
