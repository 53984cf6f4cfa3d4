"""Names of files as text that any terminal and page can show."""


def printable(text: str) -> str:
    """Write characters that cannot be shown as escapes.

    Names of files may hold bytes that are no text, and characters that steer
    a terminal.
    """
    return ''.join(
        character
        if character.isprintable() or character == '\n'
        else character.encode('unicode_escape').decode('ascii')
        for character in text
    )
