r"""One spelling for one answer: the LaTeX (and Unicode) that people and models write, brought to what numerals.py and shapes.py read.

Plain text processing, in time linear in the input but for a few bounded loops.
"""

# ruff: noqa: SIM905 (word lists read better as one string)
from __future__ import annotations

import re
from fractions import Fraction

from .units import LETTERS, without_unit

LOOKALIKES = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "±": r"\pm ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
     "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∞": r"\infty ", "√": r"\sqrt ", "°": r"^{\circ}", "€": "$", "£": "$",
     "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "μ": r"\mu ", "φ": r"\phi ",
     "ω": r"\omega ", "Δ": r"\Delta ", "Ω": r"\Omega ", "µ": r"\mu ",
     "Å": "angstrom", "¥": "$", "₹": "$", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
     "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
     "′": "'",
     "，": ",", "（": "(", "）": ")", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2002": " ", "\u2003": " "}
)  # fmt: skip
TYPED = re.compile(r"(?<![A-Za-z\\{])(?:sqrt|pi|sin|cos|tan|infinity)(?![A-Za-z])|(?<=[\w)])\*\*(?=[\w(-])")  # without LaTeX
TYPED_AS = {"infinity": "\\infty", "**": "^"}
TYPED_ROOT = re.compile(r"\\sqrt ?\(([^()]*)\)")
SUPERSCRIPT = re.compile(r"(?<=[0-9A-Za-z)}\]])[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")

PLAIN = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
SPACED_GROUPS = re.compile(r"(?<![0-9.])[0-9]{1,3}(?: [0-9]{3})+(?![0-9/]| [0-9/])")
GROUPING = re.compile(
    r"(?<=[0-9])\s*(?:\\[,!;: ]|,\s*\\!|\{,\}|~)+\s*(?:(?=[0-9]{3}(?![0-9]))|\{(?P<group>[0-9]{3})\})"
)  # between groups of three digits
COMMAS = re.compile(
    r"(?<![0-9,.(\[{])([0-9]{1,3}(?:,[0-9]{3})+)(?=\s*\\(?:pi|sqrt|cdot|times|frac)(?![A-Za-z]))|(?<=(?<!\\)\{)([0-9]{1,3}(?:,[0-9]{3})+)(?=\})"
)
FORMULA_MARKS = re.compile(r"(?<!\\)\\[()\[\]]|\\(?:begin|end)\{(?:equation|displaymath|math)\*?\}")
DIFFERENCE = re.compile(r"(?<=[})\]])\s*-\s*(?=\\\{)")  # of sets: \mathbb{R}-\{0\}
SPACING = re.compile(r"\\(?:left|right)\s*\.|(?<!\\)\\[,;:>! \n]|~|\\[hv]?phantom\s*(?:\{[^{}]*\}|\S)|\\[hv]space\*?\s*\{[^{}]*\}|\{\}")
SIGNS = re.compile(r"\\?[$%]")  # currency, percent
STYLE = re.compile(
    r"(.?)\\(text(?:bf|it|rm|sf|tt|normal|up)?|mbox|hbox|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm|emph|operatorname|underline)\*?\s*"
    r"\{((?:[^{}]|\{[^{}]*\})*)\}",
    re.DOTALL,
)
COMMAND = re.compile(r"\\([A-Za-z]+)")
FUNCTION_NAMES = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh ln log lg exp max min gcd lcm cis tg ctg arctg "
    "arcctg cosec Re Im sgn".split()
)
TABLE = (
    dict.fromkeys(
        "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle scriptstyle limits "
        "nolimits middle rm bf it sf tt mathstrut strut protect hfill noindent boxed".split(),
        "",
    )
    | dict.fromkeys("quad qquad enspace thinspace negthinspace medspace thickspace".split(), " ")
    | dict.fromkeys("dfrac tfrac cfrac nicefrac sfrac".split(), "\\frac")
    | {"bigcup": "\\cup", "bigcap": "\\cap"}
    | dict.fromkeys("dbinom tbinom".split(), "\\binom")
    | dict.fromkeys("geqslant geq geqq".split(), "\\ge")
    | dict.fromkeys("leqslant leq leqq".split(), "\\le")
    | dict.fromkeys("lvert rvert vert".split(), "|")
    | dict.fromkeys("lor vee".split(), "\\text{or}")
    | dict.fromkeys("land wedge".split(), "\\text{and}")
    | dict.fromkeys("pmod bmod mod".split(), "\\pmod")
    | dict.fromkeys("ldots dots cdots dotsc".split(), "\\ldots")
    | {"gt": ">", "lt": "<", "neq": "\\ne", "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]", "colon": ":", "ast": "*",
       "degree": "^{\\circ}", "varnothing": "\\emptyset", "varepsilon": "\\epsilon", "varphi": "\\phi", "vartheta": "\\theta",
       "tg": "\\tan", "ctg": "\\cot", "cotg": "\\cot", "cosec": "\\csc", "arctg": "\\arctan", "arcctg": "\\arccot", "lg": "\\log_{10}",
       "imath": "i", "jmath": "j", "infin": "\\infty", "Bbb": "\\mathbb", "R": "\\mathbb{R}", "Z": "\\mathbb{Z}", "Q": "\\mathbb{Q}",
       "N": "\\mathbb{N}", "C": "\\mathbb{C}", "reals": "\\mathbb{R}", "smallsetminus": "\\setminus", "backslash": "\\setminus",
       "cdotp": "\\cdot", "bar": "\\overline", "overrightarrow": "\\vec", "widehat": "\\hat", "widetilde": "\\tilde",
       "AA": "\\text{ angstrom}", "lang": "\\langle", "rang": "\\rangle", "prime": "'"}
)  # fmt: skip
ENVIRONMENT = re.compile(
    r"\\(begin|end)\s*\{(?:[pbvBV]?matrix|smallmatrix|array|cases|aligned|align\*?|gathered|split)\}\s*(?:(?<=array\})\{[^{}]*\})?"
)
SYSTEM = re.compile(r"^\s*\\\{\s*(\\begin\{matrix\}(?:(?!\\end).)*\\end\{matrix\}\s*)$", re.DOTALL)  # a brace on the left only
COLUMN = re.compile(r"\(\s*\\begin\{matrix\}([^&\\{}]*)\\\\([^&\\{}]*)\\end\{matrix\}\s*\)")
MEASURED = re.compile(r"\s*(-?[0-9][0-9.,/]*)\s*([A-Za-z].*)", re.DOTALL)
UNIT_LETTERS = re.compile(rf"[{LETTERS}](?:[\s/.^0-9{{}}-]+[{LETTERS}])+(?:\^[\d{{}}-]+)?|[{LETTERS}]\^[\d{{}}-]+")
REDUNDANT = re.compile(
    r"(?<![\\A-Za-z}\]_^])\{(\\frac\{[^{}]*\}\{[^{}]*\})\}|\{\{([^{}]*)\}\}|\{ ?\((-?\d+)\) ?\}|(?<=[-+=])\{([0-9.]+|[A-Za-z])\}"
)
LEAD = re.compile(r"^\\text\{[^{}]*(?:\bis|:|=|\bRs\.?)\} ?(?=.)|^Rs\.? ?(?=[0-9])")
DOMAIN = re.compile(  # k\pi, k \in Z
    r"(?<=\S)\s*(?:,\s*|\(\s*|\\text\{ ?(?:for|where)[a-z ]*\}\s*)[a-z](?:,[a-z])*\s*\\in\s*\\mathbb\{[ZNRQC]\}[+*^{}0-9]*\s*\)?$"
)
DOT = re.compile(r"\\dot(?=\s*\{?\s*[0-9])")  # of a repeating decimal, not of a derivative
BOLD_SET = re.compile(r"(^\s*|\\in\s*|\\setminus\s*)\\(?:mathbf|boldsymbol|bm)\s*\{?([RZNQC])\}?(?=\s*(?:$|[\\^,;.)}]))")
ARGUMENTS = {
    "\\frac": 2,
    "\\vec": 1,
    "\\hat": 1,
    "\\tilde": 1,
    "\\dot": 1,
    "\\ddot": 1,
    "\\binom": 2,
    "\\sqrt": 1,
    "\\overline": 1,
    "^": 1,
    "_": 1,
}
PIECE = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)
SHORT_ARGUMENT = re.compile(
    r"(?:\\(?:[dtc]?frac|[dt]?binom|sqrt|overline|d?dot|vec|hat|tilde)|[\^_])\s*[^{\s]|\\(?:[dtc]?frac|[dt]?binom)\s*\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}\s*[^{\s]"
)
LONG_EXPONENT = re.compile(r"\^\s*([+-]\s*(?:\d+|[A-Za-z])|\d{2,})")  # x^10 and x^-1 as people mean them
DOTTED = re.compile(r"(?<=[0-9.])\\overline ?\{([0-9])\}([0-9]*)\\overline ?\{([0-9])\}")
ELLIPSIS = re.compile(r"([0-9]{0,12}\.[0-9]{0,12}?)([0-9]{1,6}?)\2{2,}(?:\.\.\.|\\ldots)")
DEGREE = re.compile(r"\s*\^ ?\{? ?\\circ(?![A-Za-z]) ?\}?(?: ?[CF](?![A-Za-z]))?")
ANGLE = re.compile(r"(\\frac\{[^{}]*\}\{[^{}]*\}|[0-9]+(?:\.[0-9]+)?|\([^()]*\)|\{[^{}\\]*\}|[A-Za-z]|\\[a-z]+)" + DEGREE.pattern)
OF_ANGLES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|cis|exp)(?![a-z])|(?<![A-Za-z\\])e ?\^ ?\{")
CIS = re.compile(r"\\cis *(\([^()]*\)|\{[^{}]*\}|\\frac\{[^{}]*\}\{[^{}]*\}|\\?[A-Za-z]+|[0-9.]+)")
APPROXIMATELY = re.compile(r"^\s*\\(?:approx|sim)|(?<=\S)\s*\\approx.*", re.DOTALL)
NAMED_APPROXIMATELY = re.compile(r"^\s*([A-Za-z])\s*\\approx")
REVERSED_BRACKETS = re.compile(r"\](\s*[^\[\](),]+,[^\[\](),]+)([\[\]])|([\[(])([^\[\](),]+,[^\[\](),]+)\[(?=\s*(?:$|\\cup))")


def normalise(answer: str) -> str:
    r"""One spelling for one answer: `\dfrac12` is `\frac{1}{2}`, `1,\!000` is `1000`; currency, percent, degrees and units go."""
    text = answer.strip()
    if PLAIN.fullmatch(text):
        return text
    if text.endswith("\\") and not text.endswith("\\\\"):
        text = text[:-1]
    if "\\text" not in text and TYPED.search(text):
        text = TYPED_ROOT.sub(r"\\sqrt{\1}", TYPED.sub(lambda typed: TYPED_AS.get(typed.group(), f"\\{typed.group()}"), text))
    if not text.isascii():
        text = SUPERSCRIPT.sub(lambda raised: f"^{{{raised.group().translate(RAISED)}}}", text.translate(LOOKALIKES))
    if "\\" in text or "{" in text or "^" in text or "~" in text:
        text = _latex(text)
    if "$" in text or "%" in text:
        text = SIGNS.sub("", text)
    if " " in text or "\n" in text or "*" in text:
        text = " ".join(text.replace("**", "").split())
    text = text.rstrip(".,;: ")
    if text.startswith(("\\text", "Rs")):
        text = LEAD.sub("", text)
    if not text[-1:].isdigit() or "^" in text:
        text = without_unit(text)
    if " " in text:
        text = SPACED_GROUPS.sub(lambda group: group.group().replace(" ", ""), text)
    if text[:1] == "]" or text[-1:] == "[" or "\\in ]" in text:
        text = REVERSED_BRACKETS.sub(_usual_brackets, text)
    return text


def _latex(text: str) -> str:
    text = FORMULA_MARKS.sub("", text)
    text = GROUPING.sub(lambda between: between.group("group") or "", text)
    if (
        "\\text" in text
        or "\\math" in text
        or "\\operatorname" in text
        or "\\mbox" in text
        or "\\b" in text
        or "\\emph" in text
        or "\\underline" in text
    ):
        text = STYLE.sub(_upright, STYLE.sub(_upright, BOLD_SET.sub(r"\1\\mathbb{\2}", text)))
    if "\\dot" in text:
        text = DOT.sub(r"\\overline", text)
    text = COMMAND.sub(_command, SPACING.sub(" ", text))
    if "\\begin" in text:
        text = SYSTEM.sub(r"\1", ENVIRONMENT.sub(_environment, text))
        text = COLUMN.sub(lambda column: _binomial(column, text), text)
    if "\\over" in text or "\\choose" in text:
        text = _over(text)
    if "\\{" in text:
        text = DIFFERENCE.sub(r" \\setminus ", text)
    if "\\mathbb" in text:
        text = re.sub(r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}", text)
    if "^" in text:
        text = LONG_EXPONENT.sub(r"^{\1}", text)
    if SHORT_ARGUMENT.search(text):
        text = _braces(text)
    if "," in text:
        text = COMMAS.sub(lambda digits: digits.group().replace(",", ""), text)
    if "." in text and ("\\overline" in text or "\\ldots" in text):
        text = ELLIPSIS.sub(r"\1\\overline{\2}", DOTTED.sub(r"\\overline{\1\2\3}", text))
    if "\\circ" in text:
        if OF_ANGLES.search(text):
            text = ANGLE.sub(_radians, text)
        text = DEGREE.sub("", text)
    if "\\cis" in text:
        text = CIS.sub(r"e^{i(\1)}", text)
    if "\\approx" in text or "\\sim" in text:
        text = APPROXIMATELY.sub("", NAMED_APPROXIMATELY.sub(r"\1=", text))
    if "{" in text:
        text = REDUNDANT.sub(lambda group: group.group(1) or group.group(4) or f"{{{group.group(2) or group.group(3)}}}", text)
    text = DOMAIN.sub("", text) if "\\mathbb" in text else text
    while text.startswith("{") and _closes_at_the_end(text):
        text = text[1:-1].strip()
    return text


def _upright(match: re.Match[str]) -> str:
    r"""Letters and numbers set in another style are themselves; words and units become `\text{...}`, functions their command."""
    before, style, content = match.groups()
    core = content.strip(" ~\\,;")
    after_number = before.isdigit() or before in ("}", ")", " ", "~")
    if core in FUNCTION_NAMES and (before in ("_", "{") or style == "operatorname" or core == "cis" or not (core == "min" or after_number)):
        return f"{before}\\{core} "
    plain = re.sub(r"\^\s*\{?-?\d+\}?", "", re.sub(r"\\cdot(?![A-Za-z])|\\[,;: ]|~", " ", content))
    unit = (
        len(core) == 1
        and core in LETTERS
        and (before.isdigit() or before in ("}", ")", " ", "~"))
        and (content != core or before.isdigit() or style == "mathrm")
    )
    unit = unit or UNIT_LETTERS.fullmatch(plain.strip()) is not None or UNIT_LETTERS.fullmatch(core) is not None
    if measured := MEASURED.fullmatch(plain):
        return f"{before}{measured.group(1)} \\text{{{measured.group(2).strip()}}}"
    if unit or re.search(r"[A-Za-z]{2}", re.sub(r"\\[A-Za-z]+", "", plain)):
        lead = ", " if content.lstrip().startswith(",") else ""
        inner = re.sub(r"[{}]", " ", plain.strip(" ,"))
        return f"{before}{lead}\\text{{{' ' if content[:1] in ' ~' else ''}{inner.strip()}}}"
    return f"{before} {content}" if before.isalpha() else before + content


def _command(match: re.Match[str]) -> str:
    return TABLE.get(match.group(1), match.group())


def _environment(match: re.Match[str]) -> str:
    return f"\\{match.group(1)}{{matrix}}"


def _binomial(column: re.Match[str], text: str) -> str:
    r"""A column of two in parentheses is a vector alone, and a binomial coefficient in a formula."""
    return column.group() if column.group() == text.strip() else f"\\binom{{{column.group(1).strip()}}}{{{column.group(2).strip()}}}"


def _radians(match: re.Match[str]) -> str:
    angle = match.group(1).strip("{}") if match.group(1)[0] == "{" else match.group(1)
    if angle[0].isdigit():
        reduced = Fraction(angle) / 180
        return f"\\frac{{{reduced.numerator}\\pi}}{{{reduced.denominator}}}"
    return f"\\frac{{{angle}\\pi}}{{180}}"


def _over(text: str) -> str:
    r"""`{a \over b}` as `\frac{a}{b}`, `{n \choose k}` as `\binom{n}{k}`."""
    for _ in range(8):
        over = re.search(r"\\(over|choose)(?![A-Za-z])", text)
        if over is None:
            return text
        start, end, depth = over.start(), over.end(), 0
        while start > 0 and (depth or text[start - 1] != "{"):
            start -= 1
            depth += (text[start] == "}") - (text[start] == "{")
        depth = 0
        while end < len(text) and (depth or text[end] != "}"):
            depth += (text[end] == "{") - (text[end] == "}")
            end += 1
        command = "frac" if over.group(1) == "over" else "binom"
        above, below = text[start : over.start()].strip(), text[over.end() : end].strip()
        text = f"{text[:start]}\\{command}{{{above}}}{{{below}}}{text[end:]}"
    return text


def _braces(text: str) -> str:
    r"""Braces around every argument: `\frac12` is `\frac{1}{2}`, `x^2` is `x^{2}`, `\sqrt[3]2` is `\sqrt[3]{2}`, `2^(1/3)` is `2^{1/3}`."""
    out: list[str] = []
    wanted = [0]  # how many arguments are missing, in each group that is open
    option = False  # inside the [] of a root
    raised: list[bool] = []  # for each open parenthesis, whether it is an exponent
    last = ""  # the piece before, without white space
    for piece in PIECE.findall(text):
        last, before = piece if not piece.isspace() else last, last
        if piece.isspace():
            out.append(piece)
            continue
        if option:
            option = piece != "]"
            out.append(piece)
        elif piece == "[" and before == "\\sqrt":
            option = True
            out.append(piece)
        elif piece == "{":
            wanted.append(0)
            out.append(piece)
        elif piece == "}":
            if len(wanted) > 1:
                wanted.pop()
                wanted[-1] = max(0, wanted[-1] - 1)
            out.append(piece)
        elif piece == "(":
            raised.append(before == "^")
            if raised[-1]:
                wanted[-1] = max(0, wanted[-1] - 1)
            out.append("{" if raised[-1] else piece)
        elif piece == ")" and raised:
            out.append("}" if raised.pop() else piece)
        elif wanted[-1] and piece not in ARGUMENTS:
            out.append(f"{{{piece}}}")
            wanted[-1] -= 1
        else:
            out.append(piece)
            if piece in ARGUMENTS:
                wanted[-1] += ARGUMENTS[piece]
    return "".join(out)


def _closes_at_the_end(text: str) -> bool:
    depth = 0
    for piece in PIECE.finditer(text):
        depth += {"{": 1, "}": -1}.get(piece.group(), 0)
        if depth == 0:
            return piece.end() == len(text)
    return False


def _usual_brackets(match: re.Match[str]) -> str:
    """`]0,1[` as `(0,1)`."""
    inner, closing, opening, other = match.groups()
    return f"({inner}{')' if closing == '[' else ']'}" if inner is not None else f"{opening}{other})"


def same_spelling(first: str, second: str) -> bool:
    r"""Whether two normalised answers differ in white space and `\text{}` at most."""
    if "\\text" in first or "\\text" in second:
        first, second = (re.sub(r"\\text\{([^{}]*)\}", r"\1", text) for text in (first, second))
    return first.replace(" ", "") == second.replace(" ", "")
