from fixer.datapath.diagnose import Diagnosis, Explanation, InnerState, OuterState, Vouch
from fixer.datapath.repair import Action
from fixer.datapath.walk import Reason

class Result:
    alike: int
    when_ns: int
    left_out: int
    summary: bool
    inner: InnerState
    outer: OuterState
    diagnosis: Diagnosis
    reason: Reason
    explanation: Explanation
    vouch: Vouch
    unverified: bool
    action: Action
    would: Action
    inner_found: int
    inner_right: int
    outer_found: int
    outer_right: int
    vxlan: bool
    length: int
    vni: int
    vlan: int | None
    outer_source: str
    outer_destination: str
    outer_source_port: int
    outer_destination_port: int
    inner_source: str
    inner_destination: str
    inner_source_port: int
    inner_destination_port: int
    inner_version: int
    inner_protocol: int
    inner_tcp_flags: int  # 0 where it is not TCP, or they were not captured
