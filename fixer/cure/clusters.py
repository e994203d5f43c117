"""Where a setting is kept outside of the node, in the machine's or the cluster's configuration: said, not done."""

from __future__ import annotations

from fixer.cure.plan import Plan, Setting
from fixer.host.machine import Host

_OVERRIDE = '{"spec":{"featureDetectOverride":"ChecksumOffloadBroken=true"}}'


def talos(host: Host, setting: Setting) -> Plan | None:
    """docs.siderolabs.com, EthernetConfig: Talos 1.10 and newer, one document for a link.

    A link's features can drift from an unchanged document; a changed one is applied again
    (mitchross/talos-argocd-proxmox#1953). A feature that the driver does not have makes the whole document fail.
    """
    if "\nID=talos" not in f"\n{host.read('/etc/os-release') or ''}":
        return None
    document = ["apiVersion: v1alpha1", "kind: EthernetConfig", f"name: {setting.device}", "features:"]
    document += [f"  {name}: false" for name in setting.features]
    return Plan(
        keeper="Talos",
        why="/etc/os-release: ID=talos",
        setting=setting,
        by_hand=(
            "cat > ethernet.yaml <<END",
            *document,
            "END",
            "talosctl -n NODE patch machineconfig --patch @ethernet.yaml",
        ),
        notes=("Talos needs to be 1.10 or newer. `talosctl get ethernetstatus` shows what holds.",),
    )


def felix(host: Host, setting: Setting) -> Plan | None:
    """projectcalico/felix#2811: Felix turns its device's checksums off where it believes offload broken.

    The override says so; RKE2's chart (rancher/rke2#1541) and kubespray's variable (docs/CNI/calico.md) set it.
    """
    if setting.device not in ("vxlan.calico", "vxlan-v6.calico"):
        return None
    if host.exists("/var/lib/rancher/rke2"):
        return Plan(
            keeper="RKE2's chart of Calico",
            why=f"{setting.device} is Felix's, and /var/lib/rancher/rke2 is there",
            setting=setting,
            by_hand=(
                "cat > /var/lib/rancher/rke2/server/manifests/rke2-calico-config.yaml <<END   # on every server node",
                "apiVersion: helm.cattle.io/v1",
                "kind: HelmChartConfig",
                "metadata: {name: rke2-calico, namespace: kube-system}",
                "spec:",
                "  valuesContent: |-",
                "    felixConfiguration:",
                '      featureDetectOverride: "ChecksumOffloadBroken=true"',
                "END",
            ),
        )
    return Plan(
        keeper="Felix",
        why=f"{setting.device} is Felix's: it makes it, and sets its offloads",
        setting=setting,
        by_hand=(f"kubectl patch felixconfiguration default --type merge -p '{_OVERRIDE}'",),
        notes=(
            'With kubespray, in its inventory instead: calico_feature_detect_override: "ChecksumOffloadBroken=true" in '
            "group_vars/k8s_cluster/k8s-net-calico.yml.",
            "From a manifest: FELIX_FEATUREDETECTOVERRIDE=ChecksumOffloadBroken=true of the calico-node DaemonSet.",
        ),
    )


CLUSTERS = {"talos": talos, "felix": felix}
