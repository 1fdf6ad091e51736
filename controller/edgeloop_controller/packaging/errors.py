"""The error root of packaging; a text names both sides of a contradiction and the mend."""


class PackagingError(Exception):
    """A model file, a draft or a baseline table cannot become a version."""
