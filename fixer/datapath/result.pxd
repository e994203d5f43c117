# cython: language_level=3
"""The face of a packet's judgement to Python."""

from fixer.datapath.ring cimport Event


cdef class Result:
    cdef Event event
