"""An error that nothing but a test raises."""


class Boom(Exception):
    """What goes wrong in a test."""
