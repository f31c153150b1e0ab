"""A clock that tests set."""


class Clock:
    """Gives the seconds that a test has let pass, and lets `step` more pass at each look."""

    def __init__(self):
        self.now, self.step = 0.0, 0.0

    def __call__(self):
        self.now += self.step
        return self.now

    def wait(self, seconds):
        self.now += seconds
