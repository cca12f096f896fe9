# What the other scripts share: they source it. The job's work directory is the current one; it holds config.json,
# which InfraForge reads, InfraForge itself, and what that reads beside it. All else comes by environment variables.
# shellcheck shell=bash

: "${AWS_REGION:?The job gives no region: AWS_REGION is not set.}"

for tool in cdk node; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is not on the PATH: install Node 20 or later, and the CDK with: npm install -g aws-cdk@2" >&2
        exit 127
    fi
done
if [[ ! -x ./infraforge ]]; then
    echo "InfraForge is not in the job's work directory: start Forgeline with --infraforge and its checkout." >&2
    exit 127
fi

# An unattended run neither sends Amazon statistics nor looks for news.
export CDK_DISABLE_CLI_TELEMETRY=true
# shellcheck disable=SC2034 # the scripts that source this one use it
cdk=(cdk --app ./infraforge --no-notices --no-version-reporting)
