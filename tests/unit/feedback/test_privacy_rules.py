"""What the rules find and what they leave alone. All values are made up; check digits are right."""

from __future__ import annotations

import pytest

from rlhf_lightning.feedback.privacy import checksums
from rlhf_lightning.feedback.privacy.pii import find

FOUND = [
    ("EMAIL", "mail me: anna.b+news@mail.example.co.uk.", "anna.b+news@mail.example.co.uk"),
    ("EMAIL", "请联系张三zhang_3@qq.com，谢谢", "zhang_3@qq.com"),
    ("EMAIL", "邮箱：ｌｉ＠１６３．ｃｏｍ。", "ｌｉ＠１６３．ｃｏｍ"),
    ("EMAIL", "<josé@exämple.de>", "josé@exämple.de"),
    ("EMAIL", "zero width: an\u200bna@example.com", "an\u200bna@example.com"),
    ("PHONE", "我的手机号是13812345678。", "13812345678"),
    ("PHONE", "打138-1234-5678找我", "138-1234-5678"),
    ("PHONE", "打138 1234 5678找我", "138 1234 5678"),
    ("PHONE", "电话+86 138 1234 5678", "+86 138 1234 5678"),
    ("PHONE", "电话(+86)13812345678转", "(+86)13812345678"),
    ("PHONE", "电话8613812345678", "8613812345678"),
    ("PHONE", "手机１３８１２３４５６７８，", "１３８１２３４５６７８"),
    ("PHONE", "单位010-62345678", "010-62345678"),
    ("PHONE", "单位（0755）8234567", "（0755）8234567"),
    ("PHONE", "客服400-123-4567", "400-123-4567"),
    ("PHONE", "It is (512) 555-0134.", "(512) 555-0134"),
    ("PHONE", "It is 512-555-0134.", "512-555-0134"),
    ("PHONE", "It is 512.555.0134", "512.555.0134"),
    ("PHONE", "It is +1 512 555 0134", "+1 512 555 0134"),
    ("PHONE", "It is 1-512-555-0134", "1-512-555-0134"),
    ("PHONE", "my phone number is 512 555 0134", "512 555 0134"),
    ("PHONE", "London 020 7946 0958", "020 7946 0958"),
    ("PHONE", "Leeds 0113 496 0999, day or night", "0113 496 0999"),
    ("PHONE", "mobile 07700 900123", "07700 900123"),
    ("PHONE", "07700900123", "07700900123"),
    ("PHONE", "+44 (0)20 7946 0958", "+44 (0)20 7946 0958"),
    ("PHONE", "0044 20 7946 0958", "0044 20 7946 0958"),
    ("PHONE", "Berlin +49 30 901820", "+49 30 901820"),
    ("PHONE", "台北 0912-345-678", "0912-345-678"),
    ("PHONE", "香港+852 2345 6789", "+852 2345 6789"),
    ("CARD", "card 4111 1111 1111 1111, thanks", "4111 1111 1111 1111"),
    ("CARD", "5555555555554444", "5555555555554444"),
    ("CARD", "amex 3782-822463-10005", "3782-822463-10005"),
    ("CARD", "银联卡6222021234567890128的", "6222021234567890128"),
    ("CARD", "６２００ ００００ ００００ ０００５", "６２００ ００００ ００００ ０００５"),
    ("IBAN", "IBAN DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00"),
    ("IBAN", "账户GB82WEST12345698765432。", "GB82WEST12345698765432"),
    ("IP", "服务器81.2.69.142在线", "81.2.69.142"),
    ("IP", "ping 8.8.8.8", "8.8.8.8"),
    ("IP", "at 2a00:1450:4001:81b::200e.", "2a00:1450:4001:81b::200e"),
    ("URL", "see https://anna:pw@example.org/a, then", "https://anna:pw@example.org/a"),
    ("URL", "点https://example.com/r?token=abc123，谢谢", "https://example.com/r?token=abc123"),
    ("URL", "(https://github.com/anna)", "https://github.com/anna"),
    ("URL", "www.facebook.com/anna.b!", "www.facebook.com/anna.b"),
    ("URL", "https://example.org/u?mail=a@example.com", "https://example.org/u?mail=a@example.com"),
    ("CN_ID", "身份证11010519491231002X。", "11010519491231002X"),
    ("CN_ID", "号码是１１０１０５１９４９１２３１００２Ｘ", "１１０１０５１９４９１２３１００２Ｘ"),
    ("CN_ID", "旧身份证号码：110105491231002", "110105491231002"),
    ("CN_PASSPORT", "护照号E12345678，", "E12345678"),
    ("CN_PASSPORT", "passport no. EA1234567", "EA1234567"),
    ("HK_ID", "香港身份证A123456(3)持有人", "A123456(3)"),
    ("HK_ID", "（AB987654（3））", "AB987654（3）"),
    ("TW_ID", "身分證字號A123456789的", "A123456789"),
    ("US_SSN", "SSN: 219-09-9998", "219-09-9998"),
    ("US_SSN", "my ssn is 219099998", "219099998"),
    ("UK_NINO", "NI number QQ is invalid, AB 12 34 56 C is not", "AB 12 34 56 C"),
    ("UK_NINO", "AB123456C", "AB123456C"),
]

UNCERTAIN = [
    ("EMAIL", "write to anna [at] example [dot] com", "anna [at] example [dot] com"),
    ("EMAIL", "anna at example dot com", "anna at example dot com"),
    ("EMAIL", "use icon@2x.png", "icon@2x.png"),
    ("PHONE", "call me: 555-0134", "555-0134"),
    ("PHONE", "What is the number? It is 555-0134.", "555-0134"),
    ("PHONE", "the phone number is 5125550134", "5125550134"),
    ("PHONE", "联系电话：62345678", "62345678"),
    ("CARD", "my card number is 4111 1111 1111 1112", "4111 1111 1111 1112"),
    ("IP", "version 81.2.69.142", "81.2.69.142"),
    ("IP", "at 192.168.10.77", "192.168.10.77"),
    ("IP", "see 1.2.3.4", "1.2.3.4"),
    ("URL", "https://en.wikipedia.org/wiki/Privacy", "https://en.wikipedia.org/wiki/Privacy"),
    ("URL", "go to www.example.com.", "www.example.com"),
    ("CN_ID", "身份证号：110105194912310021", "110105194912310021"),
    ("CN_ID", "code 110105491231002", "110105491231002"),
    ("CN_PASSPORT", "ticket E12345678", "E12345678"),
    ("HK_ID", "lot A1234563", "A1234563"),
    ("US_SSN", "219 09 9998", "219 09 9998"),
    ("UK_NINO", "ab123456c", "ab123456c"),
]

NOTHING = [
    "in 1914-1918, 2019-2020 and on 2020-01-31, 31/12/1999, 12.05.2021",
    "1939-1945年，2008年8月8日，共1,234,567,890人",
    "The score was 21-17, 101-99; odds 1:1000000; 3.14159265358979 and 2.718281828",
    "x = 1234567 + 7654321 - 10000000 * 2; 100 000 000 km; 299 792 458 m/s; 6.02214076e23",
    "doi:10.1145/3292500.3330701, arXiv:2404.04475v2, ISBN 978-0-306-40615-7, ISSN 0317-8471, RFC 2822",
    "(Smith et al., 2019, pp. 1234-1245; 2020a) [12-15] Fig. 3.2.1, section 4.1.2",
    "v1.2.3.4 and torch 2.6.0, python 3.12.1, 1.2.3.4.5, 300.1.2.3, 127.0.0.1, 255.255.255.0, 0.0.0.0",
    "std::vector a[::2], 12:30:45, 10:15, 1::2, 00:1A:2B:3C:4D:5E",
    "@anna and mAP@0.5, a @ b, recall@10, look at example.com today, e.g. this.com",
    "价格是12345678元，编号20200131123456，时间1611111111111",
    "4111 1111 1111 1112 and 1234567890123456 and 0000 0000 0000 0000",
    "DE89370400440532013001 and GB82WEST1234569876543",
    "000-12-3456, 666-12-3456, 123-00-4567, 219-09-0000, 912-34-5678",
    "A123456(4), A123456788, BG123456C, E1234567, sha 3f2a1b9c8d7e6f5a4b3c2d1e0f",
    "110105194913310021 has no such month, 991231002",
    "commit 1234567890abcdef, id_13812345678x, x13812345678, 138123456789",
    "[PHONE_1] called 5 times, [EMAIL] and [CN_ID_12]",
]


@pytest.mark.parametrize(("kind", "text", "value"), FOUND)
def test_certain(kind: str, text: str, value: str) -> None:
    assert [(f.kind, f.text, f.certain) for f in find(text)] == [(kind, value, True)]


@pytest.mark.parametrize(("kind", "text", "value"), UNCERTAIN)
def test_uncertain(kind: str, text: str, value: str) -> None:
    assert [(f.kind, f.text, f.certain) for f in find(text)] == [(kind, value, False)]


@pytest.mark.parametrize("text", NOTHING)
def test_nothing(text: str) -> None:
    assert [(f.kind, f.text) for f in find(text)] == []


@pytest.mark.parametrize(
    ("before", "after"), [("的", "是"), ("（", "）"), ("：", "。"), ("“", "”"), ("、", "、"), ("》", "，")]
)
@pytest.mark.parametrize(
    "value", ["13812345678", "a@example.com", "4111111111111111", "11010519491231002X", "81.2.69.142", "219-09-9998"]
)
def test_chinese_signs_are_no_part_of_a_value_and_hide_none(before: str, value: str, after: str) -> None:
    assert [f.text for f in find(before + value + after)] == [value]


def test_a_list_of_numbers() -> None:
    text = "13812345678/13912345678,13712345678、010-62345678;(512) 555-0134(512) 555-0135"
    assert [f.text for f in find(text)] == [
        "13812345678",
        "13912345678",
        "13712345678",
        "010-62345678",
        "(512) 555-0134",
        "(512) 555-0135",
    ]


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checksums.luhn, "4111111111111111"),
        (checksums.iban, "GB82WEST12345698765432"),
        (checksums.resident_number, "110101199003077897"),
        (checksums.hong_kong_id, "A1234563"),
        (checksums.taiwan_id, "A123456789"),
    ],
)
def test_a_wrong_digit_fails_the_check(check, value: str) -> None:
    assert check(value)
    assert not any(check(value[:-1] + digit) for digit in "0123456789" if digit != value[-1])
