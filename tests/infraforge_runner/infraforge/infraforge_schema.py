"""What InfraForge reads (awslabs/InfraForge at 81b4f9b): its Go structs, field by field, and what it does with them.

Go ignores fields that it does not know. Here they are rejected: a field that nobody reads is a mistake.
"""

# The fields are named as InfraForge's are.
# ruff: noqa: N815

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct


class Base(Struct, frozen=True, forbid_unknown_fields=True):
    id: str = ""
    type: str = ""
    subnet: str = ""
    security: str = ""


class Vpc(Base, frozen=True, forbid_unknown_fields=True):
    vpcId: str = ""
    cidrBlock: str = ""
    natGatewayPerAZ: bool | None = None


class Efs(Base, frozen=True, forbid_unknown_fields=True):
    removePolicy: str = ""


class Lustre(Base, frozen=True, forbid_unknown_fields=True):
    azIndex: int = 0
    dataCompressionType: str = ""
    deploymentType: str = ""
    storageType: str = ""
    fileSystemVersion: str = ""
    perUnitStorageThroughput: float = 0.0
    removalPolicy: str = ""
    storageCapacityGiB: int = 0


class Eks(Base, frozen=True, forbid_unknown_fields=True):
    eksVersion: str = ""
    karpenterVersion: str = ""
    karpenterNodePools: str = ""
    karpenterOsType: str = ""
    instanceTypes: str = ""
    osType: str = ""
    windowsType: str = ""
    keyName: str = ""
    gpuType: str = ""
    osArch: str = ""
    minSize: int = 0
    maxSize: int = 0
    diskSize: int = 0
    nvidiaPluginVersion: str = ""
    efaPluginVersion: str = ""
    adminUsers: str = ""
    controlPlaneAzIndices: str = ""
    podIdentityAgentVersion: str = ""
    deployTrainingOperator: bool | None = None
    trainingOperatorVersion: str = ""
    useModernTrainingOperator: bool | None = None
    dependsOn: str = ""
    deployCsiDriver: bool | None = None
    createStorageClass: bool | None = None
    storageClassName: str = ""
    createStaticPV: bool | None = None
    createDefaultPVC: bool | None = None
    defaultPVCNamespace: str = ""
    metricsServerVersion: str = ""
    certManagerVersion: str = ""
    awsLoadBalancerControllerVersion: str = ""
    ebsCsiDriverVersion: str = ""
    efsCsiDriverVersion: str = ""
    fsxCsiDriverVersion: str = ""
    mountpointS3CsiDriverVersion: str = ""
    s3BucketName: str = ""
    mlflowVersion: str = ""
    prometheusStackVersion: str = ""
    prometheusRetention: str = ""
    prometheusStorageSize: str = ""
    grafanaStorageSize: str = ""
    dcgmExporterVersion: str = ""
    rayOperatorVersion: str = ""
    kserveVersion: str = ""
    kserveIngressClass: str = ""
    istioVersion: str = ""
    enableHyperPodComponents: bool | None = None
    neuronDevicePluginVersion: str = ""
    karpenterCpuInstanceTypes: str = ""
    karpenterCpuInstanceFamilies: str = ""
    karpenterCpuInstanceCategories: str = ""
    karpenterCpuInstanceGenerations: str = ""
    karpenterCpuCapacityTypes: str = ""
    karpenterCpuArchitectures: str = ""
    karpenterCpuDiskSize: int = 0
    karpenterCpuDiskType: str = ""
    karpenterCpuDiskIops: int = 0
    karpenterCpuDiskThroughput: int = 0
    karpenterCpuUseInstanceStore: bool = False
    karpenterCpuLabels: str = ""
    karpenterCpuTaints: str = ""
    karpenterGpuInstanceTypes: str = ""
    karpenterGpuInstanceFamilies: str = ""
    karpenterGpuInstanceCategories: str = ""
    karpenterGpuInstanceGenerations: str = ""
    karpenterGpuCapacityTypes: str = ""
    karpenterGpuArchitectures: str = ""
    karpenterGpuDiskSize: int = 0
    karpenterGpuDiskType: str = ""
    karpenterGpuDiskIops: int = 0
    karpenterGpuDiskThroughput: int = 0
    karpenterGpuUseInstanceStore: bool = False
    karpenterGpuLabels: str = ""
    karpenterGpuTaints: str = ""
    karpenterNeuronInstanceTypes: str = ""
    karpenterNeuronInstanceFamilies: str = ""
    karpenterNeuronInstanceCategories: str = ""
    karpenterNeuronInstanceGenerations: str = ""
    karpenterNeuronCapacityTypes: str = ""
    karpenterNeuronArchitectures: str = ""
    karpenterNeuronDiskSize: int = 0
    karpenterNeuronDiskType: str = ""
    karpenterNeuronDiskIops: int = 0
    karpenterNeuronDiskThroughput: int = 0
    karpenterNeuronUseInstanceStore: bool = False
    karpenterNeuronLabels: str = ""
    karpenterNeuronTaints: str = ""


class HyperPod(Base, frozen=True, forbid_unknown_fields=True):
    azIndex: int = 0
    threadsPerCore: int = 0
    clusterName: str = ""
    nodeProvisioningMode: str = ""
    nodeRecovery: str = ""
    instanceGroupName: str = ""
    instanceType: str = ""
    instanceCount: int = 0
    ebsVolumeSizeGb: int = 0
    useDefaultLifecycle: bool | None = None
    onCreateScript: str = ""
    sourceS3Uri: str = ""
    executionRolePolicies: str = ""
    eksVersion: str = ""
    eksClusterArn: str = ""
    dependsOn: str = ""
    autoScalingMode: str = ""
    autoScalerType: str = ""
    enableKarpenterScaling: bool | None = None
    clusterRole: str = ""
    createLustre: bool | None = None
    lustreStorageCapacity: int = 0
    lustreThroughput: int = 0


T = TypeVar("T", bound=Base)


class Forge(Struct, frozen=True, forbid_unknown_fields=True):
    defaults: dict[str, Any] = {}
    instances: list[dict[str, Any]] = []


class Global(Struct, frozen=True, forbid_unknown_fields=True):
    stackName: str
    dualStack: bool = False
    description: str = ""


class Forges(Struct, frozen=True, forbid_unknown_fields=True):
    vpc: Forge
    efs: Forge
    lustre: Forge
    eks: Forge
    hyperpod: Forge


class Config(Struct, frozen=True, rename={"global_": "global"}, forbid_unknown_fields=True):
    global_: Global
    enabledForges: list[str]
    forges: Forges


INSTANCE_TYPES: dict[str, type[Base]] = {"vpc": Vpc, "efs": Efs, "lustre": Lustre, "eks": Eks, "hyperpod": HyperPod}


class InfraForgeStack(Struct, frozen=True):
    """What InfraForge would create: the enabled instances, each with its forge's defaults, in their order."""

    stack_name: str
    instances: dict[str, Base]
    """By the name in `dependsOn`: `EKS:<id>`."""

    def get(self, kind: type[T]) -> T:
        (instance,) = [instance for instance in self.instances.values() if isinstance(instance, kind)]
        return instance


def read_config(config: Any) -> InfraForgeStack:
    """Raises msgspec.ValidationError, LookupError for an instance that is not there (yet)."""
    parsed = msgspec.convert(config, Config)
    instances: dict[str, Base] = {}
    for id in parsed.enabledForges:
        name, instance = _find_instance(parsed.forges, id)
        for dependency in filter(None, getattr(instance, "dependsOn", "").split(",")):
            instances[dependency]  # it has to be created before
        instances[f"{name.upper()}:{instance.id}"] = instance
    return InfraForgeStack(parsed.global_.stackName, instances)


def _find_instance(forges: Forges, id: str) -> tuple[str, Base]:
    matches = []
    for name, kind in INSTANCE_TYPES.items():
        forge: Forge = getattr(forges, name)
        msgspec.convert(forge.defaults, kind)
        for settings in forge.instances:
            msgspec.convert(settings, kind)
            if settings.get("id") == id:
                # An instance's value counts unless it is empty or 0; its booleans are pointers, and count always.
                counts = {key: value for key, value in settings.items() if value or value is False}
                matches.append((name, msgspec.convert({**forge.defaults, **counts}, kind)))
    if len(matches) != 1:
        raise LookupError(f"{len(matches)} instances {id}")
    return matches[0]
