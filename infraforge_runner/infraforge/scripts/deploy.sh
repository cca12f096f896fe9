#!/usr/bin/env bash
# Deploys the stack of config.json into AWS_REGION. The account and region have to be bootstrapped (cdk bootstrap).
set -euo pipefail
# shellcheck source=infraforge_runner/infraforge/scripts/infraforge.sh
source "$(dirname "${BASH_SOURCE[0]}")/infraforge.sh"

exec "${cdk[@]}" deploy --force --require-approval=never --progress=events
