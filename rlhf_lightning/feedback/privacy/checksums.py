"""Check digits and other tests that tell an ID or account number from any other number of that length."""

from __future__ import annotations

from datetime import date

IBAN_LENGTHS = {
    **dict.fromkeys(["NO"], 15),
    **dict.fromkeys(["BE"], 16),
    **dict.fromkeys(["DK", "FI", "FK", "FO", "GL", "NL", "SD"], 18),
    **dict.fromkeys(["MK", "SI"], 19),
    **dict.fromkeys(["AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"], 20),
    **dict.fromkeys(["CH", "CR", "HR", "LI", "LV"], 21),
    **dict.fromkeys(["BG", "BH", "DE", "GB", "GE", "IE", "ME", "RS", "VA"], 22),
    **dict.fromkeys(["AE", "GI", "IL", "IQ", "OM", "SO", "TL"], 23),
    **dict.fromkeys(["AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"], 24),
    **dict.fromkeys(["LY", "PT", "ST"], 25),
    **dict.fromkeys(["IS", "TR"], 26),
    **dict.fromkeys(["BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"], 27),
    **dict.fromkeys(["AL", "AZ", "BY", "CY", "DO", "GT", "HN", "HU", "LB", "NI", "PL", "SV"], 28),
    **dict.fromkeys(["BR", "EG", "PS", "QA", "UA"], 29),
    **dict.fromkeys(["JO", "KW", "MU", "YE"], 30),
    **dict.fromkeys(["MT", "SC"], 31),
    "LC": 32,
    "RU": 33,
}
"""Characters of an IBAN by country (SWIFT IBAN registry)."""

PROVINCES = {11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46}
PROVINCES |= {50, 51, 52, 53, 54, 61, 62, 63, 64, 65, 71, 81, 82, 83, 91}
"""First two digits of a Chinese resident identity number (GB/T 2260); 83 and 91 are those of residents from Taiwan and
of foreigners."""

_CARDS: list[tuple[int, int, set[int]]] = [
    (34, 34, {15}),  # American Express
    (37, 37, {15}),
    (300, 305, {14, 16}),  # Diners Club
    (36, 36, {14}),
    (38, 39, {14, 16}),
    (3528, 3589, {16, 17, 18, 19}),  # JCB
    (4, 4, {13, 16, 19}),  # Visa
    (51, 55, {16}),  # Mastercard
    (2221, 2720, {16}),
    (2200, 2204, {16, 17, 18, 19}),  # Mir
    (6011, 6011, {16, 17, 18, 19}),  # Discover
    (644, 659, {16, 17, 18, 19}),
    (62, 62, {16, 17, 18, 19}),  # UnionPay
    (81, 81, {16, 17, 18, 19}),
    (50, 50, {13, 14, 15, 16, 17, 18, 19}),  # Maestro
    (56, 58, {13, 14, 15, 16, 17, 18, 19}),
    (63, 63, {16, 17, 18, 19}),
    (67, 67, {16, 17, 18, 19}),
]
_TAIWAN = "ABCDEFGHJKLMNPQRSTUVXYWZIO"
"""Area letters in the order of their numbers, 10 to 35."""


def luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others (ISO/IEC 7812-1)."""
    doubled = [sum(divmod(2 * int(d), 10)) for d in digits[-2::-2]]
    return (sum(doubled) + sum(int(d) for d in digits[-1::-2])) % 10 == 0


def card_issuer(digits: str) -> bool:
    """Whether a payment card network has numbers with this beginning and length."""
    return any(low <= int(digits[: len(str(low))]) <= high and len(digits) in sizes for low, high, sizes in _CARDS)


def iban(value: str) -> bool:
    """Whether an IBAN without spaces, in capitals, has its country's length and remainder 1 by 97 (ISO 13616)."""
    if IBAN_LENGTHS.get(value[:2]) != len(value):
        return False
    return int("".join(str(int(c, 36)) for c in value[4:] + value[:4])) % 97 == 1


def resident_number(value: str) -> bool | None:
    """Whether a Chinese resident identity number of 18 characters has the right check character (GB 11643, ISO 7064
    MOD 11-2); None where its province or date of birth can't be. For the 15 digits of before 1999, which have no check
    character, False or None.
    """
    day = value[6:14] if len(value) == 18 else "19" + value[6:12]
    if int(value[:2]) not in PROVINCES or not _is_date(day):
        return None
    if len(value) != 18:
        return False
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(value[:17]))
    return "10X98765432"[total % 11] == value[17].upper()


def hong_kong_id(value: str) -> bool:
    """Whether a Hong Kong identity card number such as ``A1234563`` has the right check character (weights 9 to 1)."""
    before, first = value[:-8], value[-8]
    numbers = [int(before, 36) if before else 36, int(first, 36), *map(int, value[-7:-1]), int(value[-1], 16)]
    return sum(weight * n for weight, n in zip(range(9, 0, -1), numbers, strict=True)) % 11 == 0


def taiwan_id(value: str) -> bool:
    """Whether a Taiwan identity number such as ``A123456789`` has the right check digit (weights 1, 9 to 1, and 1)."""
    tens, ones = divmod(_TAIWAN.index(value[0]) + 10, 10)
    rest = sum(weight * int(d) for weight, d in zip(range(8, 0, -1), value[1:9], strict=True))
    return (tens + 9 * ones + rest + int(value[9])) % 10 == 0


def _is_date(yyyymmdd: str) -> bool:
    try:
        born = date(int(yyyymmdd[:4]), int(yyyymmdd[4:6]), int(yyyymmdd[6:]))
    except ValueError:
        return False
    return born.year >= 1880
