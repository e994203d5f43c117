"""The laboratory: two hosts, a real kernel VXLAN between them, and a wire with the faults of a real path.

Everything lives in network namespaces of its own and is gone afterwards; nothing outside them is touched.

===============  ===========================================================================
``net``          the two hosts and their underlay and overlay, built and removed
``pump``         the wire: one process for each direction carries frames, and spoils them
``bpf``          eBPF programs on a device: faults and tags at the speed of the kernel
``traffic``      what a user does: ping, connect, download, ask over UDP; and the kernel's verdict
``service``      ``fixer`` on one host, as its operator runs it
``story``        ``fixer demo``: the fault, the diagnosis and the cure, told on a terminal
===============  ===========================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fixer.screen.console import Console


def demo(console: Console) -> int:
    """Show the main job on ``console``; 0 if all that should have worked did, 1 otherwise."""
    from fixer.lab.story import tell  # only here: the wire's processes import this package too and need none of it

    return tell(console)
