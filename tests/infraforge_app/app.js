// Stands where InfraForge's binary stands: it reads ./config.json and makes the stack named in it. It needs neither a
// bootstrapped account nor a network, and its resources cost nothing; their names are those that InfraForge's bear, so
// that two stacks which would collide there collide here.
//
// InfraForge ignores what it does not know in a configuration. This reads one thing more there:
//     standIn: {outputs: {Key: value}, resources: how many more}

"use strict";

const { readFileSync } = require("node:fs");
const { App, CfnOutput, CfnResource, LegacyStackSynthesizer, Stack } = require("aws-cdk-lib/core");

const config = JSON.parse(readFileSync("config.json", "utf8"));
console.log("Loaded configuration from config.json");
const region = process.env.AWS_REGION;
const standIn = config.standIn ?? {};

const app = new App();
const stack = new Stack(app, config.global.stackName, {
  description: config.global.description,
  synthesizer: new LegacyStackSynthesizer(),
});

for (const id of config.enabledForges ?? []) {
  makeForge(id);
}
for (let number = 0; number < (standIn.resources ?? 0); number++) {
  makeParameter(`More${number}`, `/${stack.stackName}/more/${number}`, "more");
}
for (const [key, value] of Object.entries(standIn.outputs ?? {})) {
  new CfnOutput(stack, key, { value });
}
app.synth();

function makeForge(id) {
  for (const [forge, { defaults = {}, instances = [] }] of Object.entries(config.forges)) {
    const own = instances.find((instance) => instance.id === id);
    if (own) {
      const values = { ...defaults, ...Object.fromEntries(Object.entries(own).filter(([, value]) => value)) };
      return { lustre: makeLustre, eks: makeEks, hyperpod: makeHyperPod }[forge]?.(values);
    }
  }
  console.log(`Error creating forge ${id}: forge instance ${id} not found`);
  process.exit(1);
}

function makeLustre({ id, azIndex }) {
  makeParameter(`FsxLustreFileSystem-${id}`, `/${stack.stackName}/lustre`, `azIndex ${azIndex}`);
  new CfnOutput(stack, `LustreFileSystem${id}`, { value: `fs-${id}` });
}

function makeEks({ id, controlPlaneAzIndices }) {
  makeRole("KarpenterNodeRole", `KarpenterNodeRole-${id}-${region}`);
  makeRole("KarpenterControllerRole", `KarpenterControllerRole-${id}-${region}`);
  const cluster = makeParameter(id, `/eks/${id}`, `controlPlaneAzIndices ${controlPlaneAzIndices}`);
  new CfnOutput(stack, "ClusterEndpoint", { value: `https://${id}.eks.${region}.example` });
  new CfnOutput(stack, "ClusterArn", { value: cluster.ref });
}

function makeHyperPod({ id, clusterName, instanceType, instanceCount, azIndex, dependsOn }) {
  const eks = dependsOn.replace("EKS:", "");
  const nodes = `${instanceCount} x ${instanceType} in zone ${azIndex} of ${eks}`;
  const cluster = makeParameter(id, `/hyperpod/${clusterName}`, nodes);
  cluster.addResourceDependency(stack.node.findChild(eks));
  new CfnOutput(stack, `HyperPodClusterName${id}`, { value: clusterName });
  new CfnOutput(stack, `HyperPodClusterArn${id}`, { value: cluster.ref });
}

function makeParameter(id, name, value) {
  return new CfnResource(stack, id, {
    type: "AWS::SSM::Parameter",
    properties: { Name: name, Type: "String", Value: value },
  });
}

function makeRole(id, name) {
  const principal = { Effect: "Allow", Principal: { Service: "ec2.amazonaws.com" }, Action: "sts:AssumeRole" };
  return new CfnResource(stack, id, {
    type: "AWS::IAM::Role",
    properties: { RoleName: name, AssumeRolePolicyDocument: { Version: "2012-10-17", Statement: [principal] } },
  });
}
