"""fixer: inline repair of VXLAN traffic whose checksums were never finished or went stale. Map: docs/design.md."""

__version__ = "0.1.0"
