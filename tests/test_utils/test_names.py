"""Names of files made of what somebody wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmhiper.utils.errors import UserError
from mmhiper.utils.names import check_unicode, safe_name


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_any_text_makes_a_name(text):
    name = safe_name(text)

    assert name and name == safe_name(name)
    assert not set(name) & set('/\\:*?"<>|\0\n')
    assert name[0] not in '. ' and name[-1] not in '. '
    assert len(name.encode()) <= 130


@pytest.mark.parametrize(
    ('text', 'name'),
    [
        ('dog', 'dog'),
        ('my dog (1)', 'my dog (1)'),
        ('..', '_'),
        ('../../etc/passwd', '_.._etc_passwd'),
        ('con', '_con'),
        ('nul.tar.gz', '_nul.tar.gz'),
        ('console', 'console'),
        ('a\udcffb', 'a_b'),
        ('.hidden. ', 'hidden'),
    ],
)
def test_names(text, name):
    assert safe_name(text) == name


def test_half_a_character():
    check_unicode('prompt', 'ein Hündchen 🐕')
    with pytest.raises(UserError, match=r"'a \\ud83d dog' .* position 2"):
        check_unicode('prompt', 'a \ud83d dog')
