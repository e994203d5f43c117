"""``make kernels``: fixer on other kernels than this machine's, each booted in an emulator (root, qemu).

==============  ====================================================================================
``kernels.txt`` which kernels
``debian``      their packages, by an apt with lists and a cache of its own -> build/kernels/NAME
``initrd``      what the kernel unpacks first: the modules for its root, and ``init``
``guest``       one kernel booted: this machine's root, read-only, under an overlay; what came of it
``selection``   which tests
``inside``      what runs in there: the probes, then the tests marked ``kernels``
``probes``      what a kernel can, each tried
``table``       what came of it all, in docs/compatibility.md
==============  ====================================================================================
"""
