"""`python -m onelayer.agents.template_process`: renders short conversations with a chat template from standard input, within limits.

The process ends with 0 where that works, with 1 and a reason where the template raises or makes too much, and by a signal where it takes
too long.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

SECONDS, MEMORY, LONGEST = 5, 1 << 30, 1 << 20  # of processor time; bytes; characters
ASKED = {"role": "user", "content": "0"}
CONVERSATIONS = [[ASKED], [ASKED, {"role": "assistant", "content": "1"}, ASKED]]


def main() -> None:
    told = json.loads(sys.stdin.read())
    spent = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(spent.ru_utime + spent.ru_stime) + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (there + MEMORY, there + MEMORY))
    before = [{"role": "system", "content": told["system"]}] if told["system"] else []
    variables = told["special"] | told["options"]
    try:
        conversations = [before + messages for messages in CONVERSATIONS]
        texts = render_jinja_template(conversations, chat_template=told["template"], add_generation_prompt=True, **variables)
    except Exception as error:  # a template may raise anything
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())[:150]}")
    if not all(text.strip() for text in texts[0]):
        sys.exit("it makes nothing of a conversation")
    if (longest := max(map(len, texts[0]))) > LONGEST:
        sys.exit(f"it makes {longest} characters of a conversation of three")


if __name__ == "__main__":
    main()
