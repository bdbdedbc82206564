"""Renders small chat templates as transformers does, for tests/golden/templates.json.

Run: python scripts/golden_templates.py (transformers 5 with jinja2)

Each template uses one thing that chat templates use and that other engines understand differently: tests, filters, string
and dict methods, white space, loop controls, the generation block.
"""

import json
import pathlib

from transformers.utils.chat_template_utils import _compile_jinja_template

MESSAGES = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "Make 7 & <b>\nof 3, 4", "tags": ["a", "é"]},
    {"role": "assistant", "content": None, "calls": [{"name": "f", "arguments": {"x": 1, "y": [True, None, 2.0]}}]},
]

TEMPLATES = [
    "{{ 'abc' is sequence }} {{ 'abc' is iterable }} {{ messages is sequence }} {{ messages[0] is sequence }}",
    "{{ messages[0] is mapping }} {{ messages is mapping }} {{ 'abc' is mapping }} {{ none is mapping }}",
    "{{ messages[0] is iterable }} {{ 3 is iterable }} {{ 'a' is string }} {{ 3 is string }} {{ none is none }}",
    "{{ 3 is number }} {{ 3.5 is float }} {{ 3 is integer }} {{ true is boolean }} {{ true is number }} {{ 1 is true }}",
    "{{ x is defined }} {{ x is not defined }} {{ messages[1].name is defined }} {{ messages[0]['nope'] is defined }}",
    "{{ messages[2].content is none }} {{ messages[2]['content'] == None }} {{ '' is none }}",
    "{{ messages[1] | tojson }}",
    "{{ messages[2].calls[0].arguments | tojson(indent=2) }}",
    "{{ messages[2].calls[0].arguments }} {{ [1, 'a', none, true, 2.0] }} {{ {'k': 'v'} }}",
    "{{ messages | map(attribute='role') | join(', ') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list }}",
    "{{ messages[0].content | trim }}|{{ messages[0].content.strip() }}|{{ messages[0].content.lstrip() }}|{{ messages[0].content.rstrip() }}",
    "{{ 'a,b,c'.split(',') }} {{ 'a,b,c'.split(',')[-1] }} {{ 'xaxb'.split('x', 1) }} {{ 'Abc'.lower() }} {{ 'abc'.upper() }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'b' in 'abc' }} {{ 'role' in messages[0] }} {{ 'abc'.replace('b', 'x') }}",
    "{% for k, v in messages[2].calls[0].arguments.items() %}{{ k }}={{ v }};{% endfor %}{% for k, v in messages[0] | items %}{{ k }};{% endfor %}",
    "{{ messages[0].get('role') }} {{ messages[0].get('nope') }} {{ messages[0].get('nope', 'd') }} {{ messages[0].keys() | list }}",
    "{{ messages[::-1] | map(attribute='role') | join(',') }} {{ messages[1:] | length }} {{ 'abcdef'[1:3] }} {{ messages[-1].role }}",
    "{{ 'a' ~ 1 ~ none ~ true }} {{ 1 + 2 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 3 }} {{ 7 / 2 }} {{ 'a' * 3 }}",
    "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ loop.index0 }}{{ m.role }}{% if loop.last %}.{% endif %}{% endfor %}",
    "{% for m in messages %}{% if m.role == 'user' %}{% break %}{% endif %}{{ loop.index }}{{ m.role }}{% endfor %}",
    "{% for m in messages if m.role != 'user' %}{{ loop.previtem.role if loop.previtem is defined else '-' }}:{{ m.role }} {% endfor %}",
    "{% set ns = namespace(n=0, s='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.s = ns.s + m.role[0] %}{% endfor %}{{ ns.n }}{{ ns.s }}",
    "{% for m in messages %}\n  {%- if m.role == 'assistant' %}\n    {% generation %}\nA{{ m.role }}\n    {% endgeneration %}\n  {%- endif %}\n{% endfor %}|",
    "{%- generation -%} x {%- endgeneration -%} y",
    "  {% if true %}\n  a\n  {% endif %}\n  b\n{# c #}\n  d {{ 'e' }}\n",
    "{{- 'a' -}}\n {{ 'b' }}\n\n{{+ 'c' }}",
    "{% macro say(x, y='d') %}[{{ x }}{{ y }}]{% endmacro %}{{ say('a') }}{{ say('b', y='c') }}",
    "{{ x | default('d') }} {{ none | default('d') }} {{ none | default('d', true) }} {{ '' | default('e', true) }}",
    "{{ none | string }} {{ true | string }} {{ 3 | string }} {{ '3' | int + 1 }} {{ 'a' if x else 'b' }} {{ x or 'z' }}",
    "{{ 'hello world' | capitalize }} {{ 'hello world' | title }} {{ 'ab' | length }} {{ [3, 1, 2] | sort }} {{ [1, 2] | first }} {{ [1, 2] | last }}",
    "{{ [1, 2, 2] | unique | list }} {{ {'b': 1, 'a': 2} | dictsort }} {{ 'a b' | replace(' ', '_') }} {{ 'x' | indent(2, true) }}",
    "{{ 'a\\nb' | indent(2) }} {{ [1, 2, 3] | sum }} {{ [[1, 2], [3]] | map('length') | list }} {{ messages | length }} {{ [] | length == 0 }}",
    "{{ 'a' in ['a', 'b'] and not false }} {{ not messages[2].content }} {{ messages[0].content and true }}",
    "{{ '<b>' | e }} {{ '<b>' | safe }} {{ '&' }}",
    "{% set content %}{{ 'in' }} {{ 'side' }}{% endset %}[{{ content }}] {% filter upper %}abc{% endfilter %}",
    "{{ range(3) | list }} {{ dict(a=1) }} {{ messages[1].tags | join('+') }} {{ 'é' | length }} {{ 'ß'.upper() }}",
]


def main():
    cases = []
    for template in TEMPLATES:
        try:
            compiled = _compile_jinja_template(template)
            cases.append({"template": template, "rendered": compiled.render(messages=MESSAGES)})
        except Exception as error:  # what transformers refuses, we may refuse
            cases.append({"template": template, "error": str(error)})
    path = pathlib.Path(__file__).parent.parent / "tests/golden/templates.json"
    path.write_text(json.dumps({"messages": MESSAGES, "cases": cases}, indent=1, ensure_ascii=False) + "\n")
    print(len(cases), "templates,", sum("error" in case for case in cases), "refused")


if __name__ == "__main__":
    main()
