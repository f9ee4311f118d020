import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor

from rlhf_lightning.feedback.salt import pseudonym, salt_of
from rlhf_lightning.feedback.store import Store


def test_a_store_keeps_its_salt_and_another_has_another(tmp_path):
    with Store(tmp_path / "a.db") as store:
        salt = salt_of(store)
        assert len(salt) == 32
    with Store(tmp_path / "a.db") as again, Store(tmp_path / "b.db") as other:
        assert salt_of(again) == salt
        assert salt_of(other) != salt


def test_all_who_ask_at_once_get_one_salt(tmp_path):
    with Store(tmp_path / "a.db") as store, ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: salt_of(store), range(32)))) == 1


def test_a_pseudonym_is_an_hmac_of_the_name():
    salt = bytes(range(32))
    assert pseudonym(salt, "Zoë") == hmac.new(salt, "Zoë".encode(), hashlib.sha256).hexdigest()[:20]
    assert pseudonym(salt, "Zoë") != pseudonym(salt, "Zoe")
    assert pseudonym(salt, "Zoë") != pseudonym(bytes(32), "Zoë")
