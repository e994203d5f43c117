"""Errors that end a command: one line, whose fault it is and what to do, and an exit code of its own.

The codes are those of ``sysexits.h`` where one fits, so that a script can tell them apart:

====  ====================================================================
code  meaning
====  ====================================================================
0     done
2     the command line is wrong (click's own code)
3     ``status``, ``on``: nobody listens, or the rule is off (as ``systemctl status``); ``doctor``: something is wrong
4     ``off``, ``on``: refused, or given up: normalised connections are alive
65    a capture is damaged or cut short
66    a file is missing or cannot be read
69    the kernel lacks a part (NFQUEUE, the raw table, namespaces)
71    the operating system refused something it should allow
72    a program is missing (iptables)
75    the queue is held by another process: try again once it is gone
77    no permission: root (CAP_NET_ADMIN) is needed
78    the configuration is wrong
====  ====================================================================
"""

from __future__ import annotations


class FixerError(Exception):
    """A command cannot go on; ``str(error)`` is the one line the user reads."""

    exit_code = 1


class ConnectionsLive(FixerError):
    exit_code = 4


class CommandWrong(FixerError):
    """What click cannot see of it: that shows only while the verb is at work."""

    exit_code = 2


class CaptureDamaged(FixerError):
    exit_code = 65


class FileUnreadable(FixerError):
    exit_code = 66


class KernelLacks(FixerError):
    exit_code = 69


class SystemRefused(FixerError):
    exit_code = 71


class ProgramMissing(FixerError):
    exit_code = 72


class QueueBusy(FixerError):
    exit_code = 75


class NotPermitted(FixerError):
    exit_code = 77


class ConfigWrong(FixerError):
    exit_code = 78
