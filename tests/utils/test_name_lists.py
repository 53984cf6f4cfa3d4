"""Long lists of names in messages."""

from eaglenet_mm.utils.name_lists import name_some


def test_the_first_are_named_and_the_others_counted():
    assert name_some([]) == ''
    assert name_some(['a', 'b']) == 'a, b'
    assert name_some(list('abcde')) == 'a, b, c, d, e'
    assert name_some(list('abcdefg')) == 'a, b, c, d, e and 2 more'
