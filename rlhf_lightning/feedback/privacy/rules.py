"""What personal data looks like in English and Chinese text: one pattern and one check a rule.

The text the rules see has half-width digits and letters, plain hyphens and spaces (see `plain`), and ``HIDDEN`` where
something was found already. Every pattern is bounded, or can start at one place of a run only, so that searching is
linear in the text. What may not stand after a match may not stand before one either, else of a long row of numbers
each could be seen only once the one before it is hidden. None uses ``\\b``: to it a Chinese character is a letter, and
a number beside one would be missed.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rlhf_lightning.feedback.privacy import checksums

HIDDEN = "\0"
"""Stands in place of each character of what was found: no rule reaches over it."""

# A number inside another, a decimal, or a name with dashes is none; the same on both sides. Nor is the end of a DOI. A
# bracket or plus sign begins something new, whatever is before it.
_OPENS = r"(?=[(（+])"
_NOT_WITHIN = r"(?<![0-9A-Za-z])(?<![0-9]\.(?=[0-9]))"
_START = rf"(?:{_OPENS}|{_NOT_WITHIN}(?<![0-9A-Za-z][_-])(?<!10\.[0-9]{{4}}/)(?<!10\.[0-9]{{5}}/))"
_END = r"(?![0-9A-Za-z]|[_-][0-9A-Za-z])(?!(?<=[0-9])\.[0-9])"
_NEAR = 40
"""Characters before a number in which a word such as "phone" tells what it is."""


class Rule(NamedTuple):
    """A pattern, and a check of its matches: True for a certain one, False for an uncertain one, None for none."""

    kind: str
    pattern: re.Pattern[str]
    check: Callable[[re.Match[str]], bool | None]


class Span(NamedTuple):
    """Where a rule matched."""

    kind: str
    start: int
    end: int
    certain: bool


def spans(text: str, rule: Rule) -> Iterator[Span]:
    """All matches of a rule that pass its check; they do not overlap. One that fails may hide another: the search goes
    on one character further.
    """
    at = 0
    while match := rule.pattern.search(text, at):
        certain = rule.check(match)
        at = match.start() + 1
        if certain is not None:
            at = match.end()
            # A pattern's group "it" leaves out what only has to stand beside it.
            start, end = match.span("it") if "it" in rule.pattern.groupindex else match.span()
            yield Span(rule.kind, start, end, certain)


_WIDE = {0xFF01 + i: 0x21 + i for i in range(94) if chr(0x21 + i).isalnum() or chr(0x21 + i) in "@.-+/_#=&%~"}
_PLAIN: dict[int, str | int] = {
    **_WIDE,
    **dict.fromkeys([0x00A0, 0x2002, 0x2003, 0x2007, 0x2009, 0x202F, 0x3000], " "),
    **dict.fromkeys([0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2212, 0xFE63], "-"),
}
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")


def plain(text: str) -> tuple[str, list[int] | None]:
    """The text as the rules read it, and where its characters were, or None where each is where it was.

    Full-width letters, digits and signs, other scripts' digits, and the kinds of space and dash become plain ones;
    characters that can't be seen (zero-width, direction marks, soft hyphens) are left out.
    """
    if text.isascii():
        return text, None
    places = None
    if _INVISIBLE.search(text):
        places = [i for i, c in enumerate(text) if not _INVISIBLE.match(c)]
        text = "".join(text[i] for i in places)
    return _OTHER_DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text.translate(_PLAIN)), places


def _always(match: re.Match[str]) -> bool:
    return True


def _after(match: re.Match[str], words: re.Pattern[str]) -> bool:
    """Whether one of the words stands before a match, with nothing but ``words``' own endings between."""
    near = match.string[max(0, match.start() - _NEAR) : match.start()].rsplit(HIDDEN, 1)[-1]
    return words.search(near) is not None


def _words(english: str, chinese: str) -> re.Pattern[str]:
    link = r"(?:\s|[:：#=(（\"“-]|numbers?|num|no\.?|is|was|are|at|me|us|my|the|on|or|to|[号码是为在的我请，,])"
    return re.compile(rf"(?:(?<![A-Za-z])(?:{english})|{chinese}){link}{{0,12}}\Z", re.IGNORECASE)


_digits = re.compile(r"[^0-9]")


def digits_of(text: str) -> str:
    """Its digits alone."""
    return _digits.sub("", text)


# E-mail -------------------------------------------------------------------------------------------------------------

_LETTER = "A-Za-zÀ-ÖØ-öø-ɏ"
_LOCAL = rf"[{_LETTER}0-9._%+-]"
_FILES = r"\.(?:png|jpe?g|gif|webp|svg|pdf|py|js|ts|css|json|html?|txt|md|zip|gz)\Z"


def _email(match: re.Match[str]) -> bool:
    return re.search(_FILES, match[0], re.IGNORECASE) is None


_EMAIL = re.compile(
    # A run of these characters is tried from its first one only. What follows the domain without a break goes with it.
    rf"(?<!{_LOCAL})[.%+-]*(?P<it>[{_LETTER}0-9_]{_LOCAL}*"
    rf"@(?:[{_LETTER}0-9][{_LETTER}0-9-]*\.)+[{_LETTER}][{_LETTER}-]*[{_LETTER}](?:{_LOCAL}*[{_LETTER}0-9_])?)"
)
_AT = r"(?:\s?[\[({]\s?(?:at|@)\s?[\])}]\s?|\sat\s)"
_DOT = r"(?:\s?[\[({]\s?(?:dot|\.)\s?[\])}]\s?|\sdot\s|\.)"
_EMAIL_IN_WORDS = re.compile(
    rf"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{{0,63}}{_AT}[A-Za-z0-9-]{{1,63}}(?:{_DOT}[A-Za-z0-9-]{{1,63}}){{0,3}}?"
    rf"{_DOT}(?:com|net|org|edu|gov|io|co|cn|uk|de|fr|eu|info|me)(?![A-Za-z0-9_%+-]|\.[A-Za-z0-9])",
    re.IGNORECASE,
)


def _email_in_words(match: re.Match[str]) -> bool | None:
    """ "look at example.com" is no address: a bare "at" needs a bare "dot", and neither is certain."""
    bracketed = re.search(r"[\[({]\s?(?:at|@)\s?[\])}]", match[0], re.IGNORECASE) is not None
    return False if bracketed or re.search(r"\sdot\s", match[0], re.IGNORECASE) else None


# URL ----------------------------------------------------------------------------------------------------------------

_URL_BODY = r"[A-Za-z0-9À-ɏ._~:/?#@!$&'()*+,;=%|-]"
_URL_TAIL = r"[A-Za-z0-9À-ɏ/~_=&%#$@*+|-]"
_TLD = r"(?:com|net|org|edu|gov|io|co|cn|uk|de|fr|ru|jp|me|tv|info|hk|tw|ly|gl|app|dev|xyz|top|cc)"
_URL = re.compile(rf"(?<![A-Za-z])(?:https?|ftps?|sftp|ssh|wss?)://(?:{_URL_BODY}*{_URL_TAIL})", re.IGNORECASE)
_WWW = re.compile(rf"(?<![A-Za-z0-9.@/_-])www\.[A-Za-z0-9](?:{_URL_BODY}*{_URL_TAIL})", re.IGNORECASE)
_BARE_URL = re.compile(
    rf"(?<![A-Za-z0-9.@/:_-])(?:[A-Za-z0-9-]{{1,63}}\.){{1,6}}{_TLD}(?::[0-9]{{1,5}})?/{_URL_BODY}*{_URL_TAIL}",
    re.IGNORECASE,
)
_PERSONAL_URL = re.compile(
    r"""
      ://[^/?#]*@                                                # a login
    | [?&#;](?:[a-z_-]{0,32})(?:token|key|secret|passw(?:or)?d|pwd|auth|sig|signature|session|sid|code|user
              |username|uid|userid|user_id|openid|name|email|mail|phone|mobile|account)=  # a person's, or a key
    | (?<![a-z0-9-])(?:facebook|twitter|x|instagram|github|gitlab|t|tiktok|medium|pinterest|weibo|huggingface|vk
      |patreon)\.(?:com|me|co|org|cn)/[A-Za-z0-9_.@-]                         # a profile
    | /(?:~|@|in/|u/|user/|users/|people/|profile/|member/|members/|author/|space/)[A-Za-z0-9_.%-]
    | [A-Za-z0-9._%+-]@[A-Za-z0-9-]                              # an e-mail address within
    """,
    re.IGNORECASE | re.VERBOSE,
)


def _url(match: re.Match[str]) -> bool:
    """Certain where it names a person or opens a door; any other link may be a page that everybody reads."""
    return _PERSONAL_URL.search(match[0]) is not None


# IP -----------------------------------------------------------------------------------------------------------------

_VERSION = _words(
    r"version|versions|ver\.?|v\.?|release|releases|firmware|build|section|sections|chapter|table|figure|fig\.?|sec\.?"
    r"|python|java|chrome|driver|update|patch",
    r"版本|版|章节|固件|章|节",
)
_HOST = _words(
    r"ip|ips|ipv4|ipv6|address|host|server|ping|dns|gateway|subnet|from|ssh|via", r"地址|服务器|主机|网关|IP"
)
_IPV4 = re.compile(r"(?<![0-9A-Za-z_.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z_]|\.[0-9])")
_IPV6 = re.compile(r"(?:\[|(?<![0-9A-Za-z:.]))(?P<it>[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,42}[0-9A-Fa-f])(?![0-9A-Za-z:])")


def _ip(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        return None
    return None if found.is_loopback or found.is_unspecified or found.is_multicast else found


def _ipv4(match: re.Match[str]) -> bool | None:
    """Addresses of no machine (0.0.0.0, loopback, multicast, netmasks) are none. Those of private networks, after
    "version" or the like, and four numbers as small as a section's, unless "IP" or the like is before, are uncertain.
    """
    found = _ip(match[0])
    if found is None or match[0].startswith(("255.", "0.")):
        return None
    if _after(match, _VERSION) or found.is_private:
        return False
    return _after(match, _HOST) or max(map(int, match[0].split("."))) > 31


def _ipv6(match: re.Match[str]) -> bool | None:
    """Three groups are needed: ``::2`` and ``1::2`` are more often a slice or a ratio. Certain from four on."""
    found = _ip(match["it"])
    groups = len([g for g in match["it"].split(":") if g])
    return None if found is None or groups < 3 else groups >= 4


# Accounts -----------------------------------------------------------------------------------------------------------

_CARD_WORD = _words(
    r"card|cards|visa|mastercard|amex|debit|credit|account|acct\.?|pan|unionpay", r"卡|卡号|账号|帐号|账户|帐户"
)
_CARD = re.compile(
    rf"{_START}(?:[0-9]{{13,19}}"
    rf"|[0-9]{{4}}(?P<s>[ -])[0-9]{{4}}(?P=s)[0-9]{{4}}(?P=s)[0-9]{{1,4}}(?:(?P=s)[0-9]{{1,3}})?"
    rf"|[0-9]{{4}}(?P<t>[ -])[0-9]{{6}}(?P=t)[0-9]{{4,5}}|[0-9]{{6}}[ -][0-9]{{7,13}}){_END}"
)
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,29}")


def _card(match: re.Match[str]) -> bool | None:
    digits, said = digits_of(match[0]), _after(match, _CARD_WORD)
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return None
    if checksums.luhn(digits):
        return True if checksums.card_issuer(digits) else (False if said else None)
    return False if said else None


def ibans(text: str) -> Iterator[Span]:
    """An IBAN ends where its country's length is reached, whatever word comes next."""
    for match in _IBAN.finditer(text):
        size = checksums.IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        end = match.start()
        while size and end < match.end():
            size -= text[end] not in " -"
            end += 1
        value = re.sub("[ -]", "", text[match.start() : end]).upper()
        if not size and not re.match("[0-9A-Za-z]", text[end : end + 1]) and checksums.iban(value):
            yield Span("IBAN", match.start(), end, True)


# ID numbers ---------------------------------------------------------------------------------------------------------

_SSN_WORD = _words(r"ssn|social security|social", r"社保号|社会安全号")
_SSN = re.compile(rf"{_START}(?!000|666|9)[0-9]{{3}}(?P<s>[ -]?)(?!00)[0-9]{{2}}(?P=s)(?!0000)[0-9]{{4}}{_END}")
_NINO = re.compile(
    r"(?<![0-9A-Za-z])(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?P<s>[ -]?)[0-9]{2}(?P=s)[0-9]{2}"
    r"(?P=s)[0-9]{2}(?P=s)[A-D](?![0-9A-Za-z])",
    re.IGNORECASE,
)
_RESIDENT_WORD = _words(r"id|id card|identity|identity card|identification", r"身份证|身份证件|身分证|证件")
_RESIDENT = re.compile(rf"{_START}(?:[1-9][0-9]{{5}} ?[0-9]{{8}} ?[0-9]{{3}}[0-9Xx]|[1-9][0-9]{{14}}){_END}")
_PASSPORT_WORD = _words(r"passport", r"护照")
_PASSPORT = re.compile(rf"{_START}(?:[EG][0-9]{{8}}|E[A-HJ-NP-Z][0-9]{{7}}|[DSP]E?[0-9]{{7}}){_END}", re.IGNORECASE)
_HONG_KONG_WORD = _words(r"hkid|hkid card|id|id card|identity card", r"身份证|身份證|身分證")
_HONG_KONG = re.compile(r"(?<![0-9A-Za-z])[A-Z]{1,2}[0-9]{6} ?(?:[(（][0-9A][)）]|[0-9A](?![0-9A-Za-z]))")
_TAIWAN = re.compile(rf"{_START}[A-Z][1289][0-9]{{8}}{_END}")


def _ssn(match: re.Match[str]) -> bool | None:
    if _after(match, _SSN_WORD):
        return True
    return {"-": True, " ": False, "": None}[match["s"]]


def _nino(match: re.Match[str]) -> bool:
    return match[0].isupper()


def _resident(match: re.Match[str]) -> bool | None:
    """With a wrong check character it is one only after words that say so: it may be mistyped."""
    value = match[0].replace(" ", "")
    right, said = checksums.resident_number(value), _after(match, _RESIDENT_WORD)
    if right is None:
        return False if said and len(value) == 18 else None
    return right or (said and len(value) == 15) or (False if said or len(value) == 15 else None)


def _passport(match: re.Match[str]) -> bool | None:
    if _after(match, _PASSPORT_WORD):
        return True
    return False if match[0][0] in "EG" else None


def _hong_kong(match: re.Match[str]) -> bool | None:
    if not checksums.hong_kong_id(re.sub("[^0-9A-Z]", "", match[0])):
        return None
    return match[0][-1] in ")）" or _after(match, _HONG_KONG_WORD)


def _taiwan(match: re.Match[str]) -> bool | None:
    return True if checksums.taiwan_id(match[0]) else None


# Phone --------------------------------------------------------------------------------------------------------------

_PHONE_WORD = _words(
    r"phone|phones|telephone|tel\.?|call|calls|called|calling|mobile|cell|cellphone|fax|text|texts|dial|whatsapp|ring"
    r"|sms|hotline|wechat|viber|contact|reach|ph\.?|extension",
    r"电话|電話|手机|手機|手提|联系方式|联系|聯絡|致电|拨打|传真|座机|热线|微信|来电|固话|短信",
)
_CODES = (
    r"(?:2[07]|2[1-69][0-9]|3[0-469]|3[578][0-9]|4[013-9]|42[0-9]|5[1-8]|5[09][0-9]|6[0-6]|6[7-9][0-9]|7|8[1246]"
    r"|8[058][0-9]|9[0-58]|9[679][0-9])"
)
"""Country calling codes (ITU-T E.164) but 1, which has a rule of its own."""
_GAP = r"[ .()-]{0,2}"
_BEFORE = rf"(?:{_OPENS}|{_NOT_WITHIN}(?<![0-9][_-]))"
_INTERNATIONAL = re.compile(rf"(?:\+|{_BEFORE}00[ -]?)(?!86{_GAP}1[3-9]){_CODES}(?:{_GAP}[0-9]){{6,13}}{_END}")
_AMERICAN = re.compile(
    rf"(?:\+ ?1[ .-]?|{_BEFORE}(?:00)?1[ .-]?|{_START})"
    r"(?P<area>\((?!.11)[2-9][0-9]{2}\) ?-?|(?!.11)[2-9][0-9]{2}(?P<s>[ .-]?))"
    rf"(?!.11)[2-9][0-9]{{2}}(?(s)(?P=s)|[ .-])[0-9]{{4}}{_END}"
)
_MOBILE = re.compile(
    # After the operator's three digits eight more, 4 + 4 or 3 + 3 + 2.
    rf"(?:\+ ?86[ -]?|[(（]\+?86[)）][ -]?|{_BEFORE}(?:(?:00)?86[ -]?)?)1[3-9][0-9](?P<s>[ -]?)"
    rf"(?:[0-9]{{4}}(?P=s)[0-9]{{4}}|[0-9]{{3}}(?P=s)[0-9]{{3}}(?P=s)[0-9]{{2}}){_END}"
)
_TRUNK = re.compile(
    rf"""{_START}(?:
      (?:[(（]0(?:10|2[0-9]|[3-9][0-9]{{2}})[)）][ -]?|0(?:10|2[0-9]|[3-9][0-9]{{2}})[ -])  # China
      [0-9]{{7,8}}(?:-[0-9]{{1,5}})?
    | 0(?:10|2[0-9]|[3-9][0-9]{{2}})-[0-9]{{4}}[ -][0-9]{{4}}
    | [(（]?02[0-9][)）]?[ -][0-9]{{4}}[ -][0-9]{{4}}             # United Kingdom
    | [(（]?01[0-9]{{2}}[)）]?[ -][0-9]{{3}}[ -][0-9]{{4}}
    | 0[38][0-9]{{2}}[ -][0-9]{{3}}[ -][0-9]{{3,4}}
    | [(（]?0[17][0-9]{{3}}[)）]?[ -](?:[0-9]{{6}}|[0-9]{{5}}|[0-9]{{3}}[ -][0-9]{{3}})
    | 0[249][0-9]{{2}}(?P<s>[ -])[0-9]{{3}}(?P=s)[0-9]{{3}}         # Taiwan and Australia
    | [(（]?0[2-9][)）]?[ -][0-9]{{4}}[ -][0-9]{{4}}
    | 0[1-9](?P<f>[ .])[0-9]{{2}}(?:(?P=f)[0-9]{{2}}){{3}}       # France
    | [48]00[ -](?:[0-9]{{3}}[ -][0-9]{{4}}|[0-9]{{4}}[ -][0-9]{{3}}|[0-9]{{7}})  # Chinese service numbers
    | (?P<bare>0[1-9][0-9]{{8,10}})
    ){_END}""",
    re.VERBOSE,
)
_LOCAL_NUMBER = re.compile(rf"{_START}[2-9][0-9]{{2}}-[0-9]{{4}}{_END}")
_NUMBER = re.compile(r"number|phone|call|dial|fax|电话|手机|号码", re.IGNORECASE)
_TOLD = re.compile(rf"{_START}(?:\([0-9]{{1,5}}\) ?-?)?[0-9](?:[ .-]{{0,2}}[0-9]){{6,14}}{_END}")


def _international(match: re.Match[str]) -> bool | None:
    """At most 15 digits (E.164). Fewer than ten in one piece may be a sum: uncertain."""
    digits = digits_of(match[0])
    zeros = match[0].startswith("0")
    if not 8 <= len(digits) - 2 * zeros <= 15 or (zeros and len(digits) < 12):
        return None
    grouped = re.search(r"[0-9][ .()-]+[0-9]", match[0][3:]) is not None
    return _after(match, _PHONE_WORD) or (not zeros and (len(digits) >= 10 or grouped)) or (zeros and grouped)


def _american(match: re.Match[str]) -> bool | None:
    """With spaces alone it is certain, and in one piece possible, only with a plus or after words that say so."""
    if match["s"] in ("-", ".") or match["area"].startswith("(") or match[0].startswith("+"):
        return True
    said = _after(match, _PHONE_WORD)
    return said if match["s"] else (False if said else None)


def _trunk(match: re.Match[str]) -> bool:
    """In one piece certain for British mobile numbers and after words that say so."""
    return match["bare"] is None or re.fullmatch("07[0-9]{9}", match[0]) is not None or _after(match, _PHONE_WORD)


def _local(match: re.Match[str]) -> bool | None:
    """``555-0134`` where numbers or calls were spoken of shortly before: else it is more likely a range."""
    near = match.string[max(0, match.start() - _NEAR) : match.start()].rsplit(HIDDEN, 1)[-1]
    return False if _NUMBER.search(near) else None


def _told(match: re.Match[str]) -> bool | None:
    """Any number of 7 to 15 digits (E.164 has no longer ones) after "phone" or the like, but years and dates."""
    if not _after(match, _PHONE_WORD):
        return None
    if len(digits_of(match[0])) > 15:
        return None
    years = re.fullmatch(r"(?:1[89]|20)[0-9]{2}[ .-]{1,2}(?:(?:1[89]|20)[0-9]{2}|[0-9]{1,2}[ .-][0-9]{1,2})", match[0])
    return None if years else False


RULES = [
    Rule("URL", _URL, _url),
    Rule("URL", _WWW, _url),
    Rule("URL", _BARE_URL, _url),
    Rule("EMAIL", _EMAIL, _email),
    Rule("EMAIL", _EMAIL_IN_WORDS, _email_in_words),
    Rule("CN_ID", _RESIDENT, _resident),
    Rule("HK_ID", _HONG_KONG, _hong_kong),
    Rule("TW_ID", _TAIWAN, _taiwan),
    Rule("US_SSN", _SSN, _ssn),
    Rule("UK_NINO", _NINO, _nino),
    Rule("CN_PASSPORT", _PASSPORT, _passport),
    Rule("CARD", _CARD, _card),
    Rule("IP", _IPV6, _ipv6),
    Rule("IP", _IPV4, _ipv4),
    Rule("PHONE", _MOBILE, _always),
    Rule("PHONE", _INTERNATIONAL, _international),
    Rule("PHONE", _AMERICAN, _american),
    Rule("PHONE", _TRUNK, _trunk),
    Rule("PHONE", _LOCAL_NUMBER, _local),
    Rule("PHONE", _TOLD, _told),
]
"""The most specific first: of two that overlap and are equally certain, the first names the kind."""
