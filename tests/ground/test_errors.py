from vit_jax.errors import UserError


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    assert str(UserError("no key 'a\x1eb\nc\u2028d\r\n'")) == "no key 'a b c d '"
