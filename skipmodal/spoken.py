"""Numbers, signs and abbreviations as English is read aloud: "$5.50 at 5:05 pm" -> "five dollars and fifty cents ..."

The rules that speech synthesis commonly has, on num2words; the libraries that have them need compiled grammars.
Each pattern is bounded or begins where no digit is before it, so that long input takes linear time.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

Match = re.Match[str]

_SIGNS = {
    "&": " and ", "%": " percent ", "#": " number ", "=": " equals ", "+": " plus ", "@": " at ",
    "°": " degrees ", "×": " times ", "÷": " divided by ", "±": " plus or minus ", "⁄": " over ",  # noqa: RUF001
    "$": " dollars ", "£": " pounds ", "€": " euros ", "¥": " yen ", "¢": " cents ", "₹": " rupees ",
    "²": " squared ", "³": " cubed ", "√": " root ", "π": " pi ", "§": " section ", "©": " copyright ",
}  # fmt: skip
# Sign -> one, several, one hundredth, several of these.
_MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"), "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"), "¥": ("yen", "yen", "", ""), "₹": ("rupee", "rupees", "paisa", "paise"),
}  # fmt: skip
_UNITS = {
    "km/h": ("kilometre an hour", "kilometres an hour"), "mph": ("mile an hour", "miles an hour"),
    "km": ("kilometre", "kilometres"), "cm": ("centimetre", "centimetres"), "mm": ("millimetre", "millimetres"),
    "m": ("metre", "metres"), "kg": ("kilogram", "kilograms"), "mg": ("milligram", "milligrams"),
    "g": ("gram", "grams"), "lbs": ("pounds", "pounds"), "lb": ("pound", "pounds"), "oz": ("ounce", "ounces"),
    "ft": ("foot", "feet"), "yd": ("yard", "yards"), "ml": ("millilitre", "millilitres"), "kHz": ("kilohertz",) * 2,
    "MHz": ("megahertz",) * 2, "GHz": ("gigahertz",) * 2, "Hz": ("hertz",) * 2, "kW": ("kilowatt", "kilowatts"),
    "GB": ("gigabyte", "gigabytes"), "MB": ("megabyte", "megabytes"), "KB": ("kilobyte", "kilobytes"),
}  # fmt: skip
_SHORT = {
    "Mr.": "Mister", "Mrs.": "Missus", "Dr.": "Doctor", "Prof.": "Professor", "Rev.": "Reverend", "Gen.": "General",
    "Capt.": "Captain", "Lt.": "Lieutenant", "Sgt.": "Sergeant", "Col.": "Colonel", "Jr.": "Junior", "Sr.": "Senior",
    "vs.": "versus", "etc.": "et cetera", "e.g.": "for example", "i.e.": "that is", "approx.": "approximately",
}  # fmt: skip
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_PARTS = {2: "half", 4: "quarter"}  # the other denominators are ordinals
_DENOMINATORS = {2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 32, 64, 100}
_DIGITS = str.maketrans({
    "0": "zero ", "1": "one ", "2": "two ", "3": "three ", "4": "four ", "5": "five ", "6": "six ",
    "7": "seven ", "8": "eight ", "9": "nine ", ".": "point ", **dict.fromkeys("stndrh"),
})  # fmt: skip

_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_AMOUNT = rf"(?<![\d.,]){_WHOLE}(?:\.\d+)?"
_YEAR = r"(?:1\d|20)\d\d"
_MONTH = "|".join(_MONTHS)
_TERM = r"(?:\d{1,3}(?:,\d{3}){1,3}|\d{1,4}(?:\.\d{1,4})?)"  # of a range
_BEFORE_A_YEAR = (
    "in|since|from|between|until|till|by|of|before|after|during|around|circa|year|early|late|mid|"
    + "|".join(
        f"{month},?|{month} [a-z]+(?:-[a-z]+)?,?|{month} \\d{{1,2}}(?:st|nd|rd|th),?"
        for month in (*_MONTHS, "(?:Sept?|[A-Z][a-z]{2})\\.")
    )
)
_ALONE = r"(?![\w/-]|[.,:]\d)"  # behind a number: nothing that makes it part of a longer one
_COUNTS = re.compile("[0-9°]")
_NUMBER = re.compile(rf"{_WHOLE}(?:\.\d+|st|nd|rd|th)?", re.ASCII | re.IGNORECASE)


def spoken(text: str) -> str:
    """Rewrites numbers, signs and abbreviations of English as words; spacing is left to be tidied.

    What is between digits decides: "3/4" is a fraction, "3-4" a range, "3:40" a time, "1990s" a decade.
    """
    rules = _RULES if _COUNTS.search(text) else _RULES[:_ABBREVIATIONS]  # most sentences have no number
    for pattern, rule in rules:
        text = pattern.sub(rule, text)
    for sign, word in _SIGNS.items():
        text = text.replace(sign, word)
    return _NUMBER.sub(_number, text)


def _date(match: Match) -> str:
    year, month, day = map(int, match.groups())
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0].replace("-", " ")
    return f"{_MONTHS[month - 1]} {_words(f'{day}th')}, {_year(year)}"


def _decade(match: Match) -> str:
    digits = match[1]
    words = _year(int(digits)) if re.fullmatch(_YEAR, digits) else _words(digits)
    if words.endswith("y"):
        return f"{words[:-1]}ies"
    return f"{words}es" if words.endswith("x") else f"{words}s"


def _time(match: Match) -> str:
    hour, minute, half = int(match[1]), int(match[2]), match[3]
    if hour > 24:
        return match[0]
    said = _words(str(hour))
    if minute:
        said += f" oh {_words(str(minute))}" if minute < 10 else f" {_words(str(minute))}"
    elif not half:
        said += " o'clock" if 0 < hour <= 12 else " hundred"
    return said + (f" {half[0].lower()}.m." if half else "")


def _money(match: Match) -> str:
    sign, amount, most, scale = match.groups()
    one, several, cent, cents = _MONEY[sign]
    more = (f" to {most}" if most else "") + (f" {scale}" if scale else "")
    whole, _, part = amount.replace(",", "").partition(".")
    if most or scale or not cent or (part and len(part) != 2):
        return f" {amount}{more} {one if amount == '1' and not more else several}"
    pieces = [f"{whole} {one if whole == '1' else several}"] if int(whole[:20]) or not int(part or 0) else []
    if int(part or 0):
        pieces.append(f"{int(part)} {cent if int(part) == 1 else cents}")
    return f" {' and '.join(pieces)}"


def _unit(match: Match) -> str:
    one, several = _UNITS[match[2]]
    return f"{match[1]} {one if match[1] == '1' else several}"


def _fraction(match: Match) -> str:
    whole, over, under = match[1], int(match[2]), int(match[3])
    if under not in _DENOMINATORS or over >= under or not over:
        return match[0]
    part = _PARTS.get(under) or _words(f"{under}th")
    said = f"{_words(str(over))} {part if over == 1 else 'halves' if under == 2 else f'{part}s'}"
    return f"{whole}and {said}" if whole else said


def _span(match: Match) -> str:
    first, last = match.groups()
    if first == last:  # fifty-fifty
        return match[0]
    if re.fullmatch(_YEAR, first):
        return f"{_year(int(first))} to {_year(int(last)) if re.fullmatch(_YEAR, last) else last}"
    return f"{first} to {last}"


def _years(match: Match) -> str:
    before, first, between, last = match.groups()
    return before + _year(int(first)) + (between + _year(int(last)) if last else "")


def _year(year: int) -> str:
    return _words(f"{year}y").replace("oh-", "oh ")


def _number(match: Match) -> str:
    number, text = match[0].replace(",", "").lower(), match.string
    # A very long number or one that starts with zeros is an identifier: spell it digit by digit.
    digits = len(number) > 15 or re.match(r"0\d", number)
    words = number.translate(_DIGITS).rstrip() if digits else _words(number)
    # "3-year-old" and "F-16" stay one word.
    before, after = text[max(match.start() - 2, 0) : match.start()], text[match.end() : match.end() + 2]
    left = "" if re.fullmatch(r"\w-", before) else " "
    right = "" if re.match(r"-\w|'", after) else " "
    return f"{left}{words}{right}"


@lru_cache(maxsize=4096)
def _words(number: str) -> str:
    """ "21st" -> "twenty-first", "1905y" -> the year; the cache because a conversion is slow next to all else here."""
    from num2words import num2words  # only texts with digits pay for it

    whole, point, decimals = number.partition(".")
    digits = whole.rstrip("stndrhy")
    kind = "cardinal" if digits == whole else "year" if whole.endswith("y") else "ordinal"
    words = str(num2words(int(digits), to=kind)).replace(",", "")
    return f"{words} {(point + decimals).translate(_DIGITS)}".rstrip()


def _choice(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


_ABBREVIATIONS = 3  # rules that come first and need no digit
_RULES: list[tuple[re.Pattern[str], str | Callable[[Match], str]]] = [
    (re.compile(pattern, re.ASCII), rule)
    for pattern, rule in (
        (rf"(?<![\w.])(?:{_choice(_SHORT)})(?!\w)", lambda match: _SHORT[match[0]]),
        (r"\bSt\.(?= [A-Z])", "Saint"),
        (r"\bSt\.", "Street"),
        (r"\b[Nn]o\. ?(?=\d)", "number "),
        (rf"(?<![\w.-])({_YEAR})-(\d\d)-(\d\d)(?![\w-])", _date),
        (r"(?<![\w-])(\d{3})-(\d{4})(?![\w-])", lambda match: f"{' '.join(match[1] + match[2])}"),  # a telephone
        (r"(?<![\w.,])'?(\d{1,4})'?s(?!\w)", _decade),
        (r"(?<=[A-Za-z]-)(\d{1,4})s(?!\w)", _decade),
        (r"(?<![\w:.,])(\d{1,2}):([0-5]\d)(?![\d:])(?: ?([AaPp])\.?[Mm](?:\b\.?))?", _time),
        (r"(?<![\w:.,])(\d{1,2}):(\d\d):(\d\d)(?![\d:])", r"\1 \2 \3"),
        (r"(?<![\w:.,])(\d{1,3}):(\d{1,3})(?![\d:])", r"\1 to \2"),
        (r"(?<![\w:.,])(\d{1,2}) ?([ap])m\b", r"\1 \2.m."),
        (
            rf"([$£€¥₹]) ?({_WHOLE}(?:\.\d+)?)(?:-(\d{{1,9}}))?(?: (hundred|thousand|million|billion|trillion)\b)?",
            _money,
        ),
        (rf"({_AMOUNT}) ?¢", lambda match: f"{match[1]} {'cent' if match[1] == '1' else 'cents'}"),
        (r"(?<![\w.])(\d{1,2})' ?(\d{1,2})(?:\"|''|(?!\w))", r"\1 foot \2"),
        (rf"({_AMOUNT}) ?({_choice(_UNITS)})(?![\w/'])", _unit),
        (r"° ?C\b", " degrees Celsius"),
        (r"° ?F\b", " degrees Fahrenheit"),
        (r"(?<![\w.,/])(\d{1,4} )?(\d{1,2})[/⁄](\d{1,3})(?![\d/⁄]|[.,]\d)", _fraction),  # noqa: RUF001
        (rf"(?<![\w.,/-])({_TERM})-({_TERM}){_ALONE}", _span),
        (rf"\b({_MONTH}) (\d{{1,2}})(?!\w|[.,:]\d)", lambda match: f"{match[1]} {_words(match[2] + 'th')}"),
        (rf"(?<![\w.,])(\d{{1,2}}) ({_MONTH})(?= \d{{4}})", lambda match: f"{_words(match[1] + 'th')} of {match[2]}"),
        (rf"(?<=\b)((?:{_BEFORE_A_YEAR}) )({_YEAR})(?:( (?:to|and|until) )({_YEAR}))?{_ALONE}", _years),
        (r"(?<=\d)[x×](?=\d)", " by "),  # noqa: RUF001
        (r"(?:(?<=\s)|(?<=\()|^)-(?=\d)", "minus "),
        (r"~ ?(?=\d)", "about "),
        (r"(?:(?<=\s)|^)\.(\d{1,15})(?![\w.])", lambda match: f"point {' '.join(match[1])}"),
        (
            r"(?<![\d.])(\d{1,4})((?:\.\d{1,4}){2,8})(?![\d.])",
            lambda match: (match[1] + match[2]).replace(".", " point "),
        ),
    )
]
