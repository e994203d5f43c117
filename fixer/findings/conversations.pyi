from enum import IntEnum

class Fate(IntEnum):
    NONE = 0
    FINISHED = 1
    UNKNOWN = 2
    UNANSWERED = 3
    ACCEPTED = 4
    ACCEPTED_DATA = 5
    REFUSED = 6
    LOST = 7
    MERGED = 8
