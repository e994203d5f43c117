"""fixer: inline repair of VXLAN traffic whose checksums were never finished or went stale.

The map of the package, in the order in which a packet and then an operator meet it:

=================  ==================================================================================
``nfqueue``        the kernel's queue: packets in, verdicts out (compiled, no GIL)
``datapath``       walk, diagnose, repair (compiled, no GIL, no I/O, no allocation)
``_csum``          ones'-complement arithmetic, the leaf all else stands on
``telemetry``      what is told: the datapath's event ring becomes ECS documents
``daemon``         ``fixer run``: config, queue, datapath, telemetry, signals
``scan``           ``fixer scan``: a capture through the same datapath; ``pcap`` reads one (compiled)
``node``           the host: iptables rules, what ``status`` reads
``lab``            hosts, VXLAN and broken wires in namespaces, for the demo and the tests
``config``         fixer.toml to typed settings
``cli``            one thin function per verb
=================  ==================================================================================
"""

__version__ = "0.1.0"
